"""`--set section.key=value`, laid over what the file says."""

from collections.abc import Sequence

from minigpt.config.keys import all_keys, takes_null, unknown_key
from minigpt.config.problems import Problem, section_problem
from minigpt.config.renamed import RENAMED
from minigpt.config.yaml_text import KeyPath, Place, Value, Written, read_value
from minigpt.errors import ConfigError, on_one_line

_AFTER_THE_FILE = 10**9


def with_overrides(written: Written, overrides: Sequence[str]) -> tuple[Written, list[Problem]]:
    """`written` with each override laid over it, later ones winning, and the problems met."""
    values = _copied(written.values)
    places = dict(written.places)
    problems: list[Problem] = []
    for number, override in enumerate(overrides):
        place = Place(_AFTER_THE_FILE + number, f"--set {override}")
        try:
            path, value = _split(override)
        except ConfigError as error:
            problems.append((place, str(error)))
            continue
        if problem := _problem(path, value):
            problems.append((place, problem))
            continue
        _put(values, path, value)
        places[path] = place
    return Written(values, places), problems


def _split(override: str) -> tuple[KeyPath, Value]:
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        raise ConfigError("not of the form section.key=value, such as training.max_steps=100")
    if on_one_line(override) != override:
        raise ConfigError(
            "holds control characters or broken Unicode; such a text can only stand in the YAML file"
        )
    if not text.strip():
        rule = all_keys().leaves.get(tuple(name.split(".")))
        way_out = f"write {name}=null if you mean none" if rule and takes_null(rule) else "give one"
        raise ConfigError(f"no value after =; {way_out}")
    try:
        path = tuple(name.split("."))
        return RENAMED.get(path, path), read_value(text, "--set")
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("--set: ")) from None


def _problem(path: KeyPath, value: Value) -> str | None:
    keys = all_keys()
    if path in keys.leaves:
        return None
    if path in keys.sections:
        return section_problem(path, value)
    for length in range(1, len(path) + 1):
        if path[:length] in keys.leaves:
            name = ".".join(path[:length])
            return f"{name} is a single value and has no keys of its own; set {name} itself"
        if path[:length] not in keys.sections:
            return unknown_key(path[:length])
    raise AssertionError(path)


def _put(values: dict[str, Value], path: KeyPath, value: Value) -> None:
    """Sets a nested key; a section that the file holds something else for keeps that, for its own error."""
    for name in path[:-1]:
        if values.get(name) is None:
            values[name] = {}
        child = values[name]
        if not isinstance(child, dict):
            return
        values = child
    values[path[-1]] = value


def _copied(values: dict[str, Value]) -> dict[str, Value]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in values.items()}
