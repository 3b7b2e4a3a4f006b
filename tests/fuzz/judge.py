"""Whether a configuration was taken just as it was given, or refused in words: anything else is a defect."""

import re
from typing import Any

from minigpt.config.checks import advice
from minigpt.config.derived import derived
from minigpt.config.dump import to_yaml
from minigpt.config.keys import all_keys
from minigpt.config.load import validated
from minigpt.config.run_config import RunConfig
from minigpt.config.yaml_text import KeyPath, read_mapping, read_value
from minigpt.errors import ConfigError, on_one_line
from tests.fuzz.cases import Case

WAY_OUT = re.compile(
    r"; (use|did you mean|set|give|put|write|null|such a text can only stand|move|choose|save|delete|name|lower|try) ?|"
    r" is not (a |text|true|one of|null|auto)| must be | did you mean | has \w+, | needs |such as |wanted |"
    r"not valid YAML: |is read only|put it in quotes|stands here for the second time|\d+ more like these"
)
"""What says how to go on: a suggestion, or what would be taken."""
PLACE = re.compile(r"\.yaml:\d+: (not valid YAML|the YAML tag|a NUL|half a character)")
"""What is no configuration yet has no keys, but a line."""
MOST_CHARACTERS = 2500


def complaint_problem(case: Case, text: str) -> str | None:
    """What a refusal lacks: one line a mistake, a place, the key, a way out."""
    lines = text.splitlines()
    if not lines:
        return "refused without a word"
    for line in lines:
        if line != on_one_line(line):
            return f"control characters in {line!r}"
        if len(line) > MOST_CHARACTERS:
            return f"a line of {len(line)} characters: {line[:200]}"
        if not WAY_OUT.search(line):
            return f"no way out in {line!r}"
    if case.named and not any(map(text.__contains__, case.named)) and not PLACE.search(text):
        words = set(re.findall(r"\w+", text))
        if words.intersection(name.rsplit(".", 1)[-1] for name in case.named):
            return None  # beside its section, in a sentence on two keys
        return f"none of {case.named} is named in {text!r}"
    return f"{len(lines)} lines" if len(lines) > 8 else None


def loaded_as_given(case: Case, base: RunConfig, config: RunConfig) -> str | None:
    """What is not as it was written: a value, another key, the way through YAML and back."""
    if (back := validated(read_mapping(to_yaml(config), "back.yaml"))) != config:
        return f"the YAML reads back as another configuration: {_first_difference(config, back)}"
    before, after = leaves(base), leaves(config)
    asked = dict(case.asked)
    for path, text in asked.items():
        given = read_value(text, "--set") if case.overrides else _from_file(text)
        if not _is_taken_as(given, after[path], all_keys().leaves[path]):
            return f"{'.'.join(path)} was given as {text!r} and became {after[path]!r}"
    if case.asked:
        for path, value in after.items():
            if path not in asked and not _same(value, before[path]):
                return f"{'.'.join(path)} changed too: {before[path]!r} -> {value!r}"
    for line in [*advice(config), *derived(config)]:
        if line != on_one_line(line):
            return f"control characters in {line!r}"
    return None


def leaves(config: RunConfig) -> dict[KeyPath, Any]:
    """Every key of a configuration with its value."""
    values = config.model_dump(mode="json")
    found = {}
    for path in all_keys().leaves:
        value: Any = values
        for name in path:
            value = value[name]
        found[path] = value
    return found


def _from_file(text: str) -> Any:
    """The value of `key: text` in a file."""
    return read_mapping(f"key: {text}\n", "one.yaml").values["key"]


def _first_difference(one: RunConfig, other: RunConfig) -> str:
    before, after = leaves(one), leaves(other)
    return next(
        f"{'.'.join(path)}: {before[path]!r} -> {after[path]!r}"
        for path in before
        if before[path] != after[path]
    )


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


TRUE, FALSE = ("true", "yes", "on", "y", "t", "1"), ("false", "no", "off", "n", "f", "0")


def _is_taken_as(given: Any, taken: Any, rule: Any) -> bool:
    """Whether `taken` is what was given, after the coercions that are documented.

    Numbers may be quoted, whole ones may be written 1e3 or 1.0, switches may be words, and a list may hold either.
    """
    if isinstance(taken, list) or isinstance(given, list):
        if not isinstance(given, list) or len(taken) != len(given):
            return False
        return all(_is_taken_as(one, other, {}) for one, other in zip(given, taken, strict=True))
    if isinstance(taken, bool):
        words = TRUE if taken else FALSE
        return given is taken or str(given).lower() in words or (given in (0.0, 1.0) and bool(given) is taken)
    if isinstance(given, bool):
        return bool(taken == ("on" if given else "off"))
    if isinstance(taken, int | float):
        number = float(given) if isinstance(taken, float) or isinstance(given, float) else int(given)
        return repr(type(taken)(number)) == repr(taken)
    return _same(given, taken)


def judged_load(case: Case, base: RunConfig, file: str = "case.yaml") -> tuple[str, str | None]:
    """('accepted' | 'refused', what is wrong with that)."""
    try:
        text = case.yaml.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "refused", None  # judged where files are read
    try:
        config = validated(read_mapping(text, file), case.overrides)
    except ConfigError as error:
        return "refused", complaint_problem(case, str(error))
    return "accepted", loaded_as_given(case, base, config)
