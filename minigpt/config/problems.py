"""What is wrong with what a user wrote: one line a problem, each with its place and the way out."""

import difflib
import re
from collections.abc import Mapping

from pydantic import ValidationError

from minigpt.config.keys import all_keys, allowed_words, takes, takes_null, unknown_key
from minigpt.config.yaml_text import KeyPath, Place, Value, Written
from minigpt.errors import ConfigError, ConfigProblems, on_one_line

_WHOLE = re.compile(r"\s*[-+]?[0-9]+(?:_[0-9]+)*\s*")
_MAX_LINES = 8
_MAX_SHOWN = 60
_MAX_PLACE = 200
_OFF_WORDS = ("off", "none", "no", "never", "false", "-1", "0")

Problem = tuple[Place, str]
_NOWHERE = Place(0, "defaults")


def shown(value: object) -> str:
    """`value` as a user would write it, cut to a line's worth."""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(shown(item) for item in value)}]"
    else:
        text = repr(value)
    return clipped(text, _MAX_SHOWN)


def clipped(text: str, most: int) -> str:
    """`text`, its end left out where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def misplaced(written: Written) -> tuple[dict[str, Value], list[Problem]]:
    """The values without what has no place in a configuration, and one problem for each thing left out."""
    problems: list[Problem] = []

    def kept(path: KeyPath, values: Mapping[str, Value]) -> dict[str, Value]:
        good: dict[str, Value] = {}
        for name, value in values.items():
            child = (*path, name)
            if name not in all_keys().sections[path]:
                problems.append((written.places[child], unknown_key(child)))
            elif child not in all_keys().sections:
                good[name] = value
            elif value is None:
                good[name] = {}
            elif isinstance(value, dict):
                good[name] = kept(child, value)
            else:
                problems.append((written.places[child], section_problem(child, value)))
        return good

    return kept((), written.values), problems


def unfit_numbers(values: Mapping[str, Value], written: Written) -> list[Problem]:
    """Values that pydantic would take for another: a switch for a number; and whole numbers beyond 64 bits."""
    problems: list[Problem] = []
    for path, rule in all_keys().leaves.items():
        value = _looked_up(values, path, None)
        place = written.places.get(path, _NOWHERE)
        kinds = {option.get("type") for option in rule.get("anyOf", [rule])}
        if isinstance(value, bool) and kinds <= {"integer", "number", "null"}:
            problems.append((place, _leaf_problem(path, value)))
        elif "integer" in kinds and _magnitude(value) >= 1 << 64:
            text = f"{'.'.join(path)} = {shown(value)} is beyond 64 bits; use a smaller number"
            problems.append((place, text))
    return problems


def _magnitude(value: object) -> float:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value[:100])
    return abs(value) if isinstance(value, int | float) else 0


def section_problem(path: KeyPath, value: object) -> str:
    """One sentence on a value given where a section stands."""
    name, first = ".".join(path), all_keys().sections[path][0]
    return (
        f"{name} = {shown(value)}, but {name} is a section; set its keys one by one, such as {name}.{first}"
    )


def explained(error: ValidationError, written: Written) -> list[Problem]:
    """One problem for each key that pydantic found wrong, and one for each combination."""
    problems: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_context=False):
        path = _key_path(detail["loc"])
        if path in all_keys().leaves:
            text = _leaf_problem(path, _looked_up(written.values, path, detail["input"]))
            problems.setdefault(text, (written.places.get(path, _NOWHERE), text))
            continue
        for line in detail["msg"].removeprefix("Value error, ").splitlines():
            text = _in_full(line, path)
            problems.setdefault(text, (_mentioned(text, path, written.places), text))
    return list(problems.values())


def refusal(problems: list[Problem]) -> ConfigError:
    """The error with one line a problem, in reading order, at most eight."""
    # what the user wrote may hold line ends, and be of any length
    lines = [
        on_one_line(f"{clipped(place.where, _MAX_PLACE)}: {text}") for place, text in sorted(set(problems))
    ]
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], f"... and {len(lines) - _MAX_LINES + 1} more like these"]
    return ConfigProblems("\n".join(lines))


def _leaf_problem(path: KeyPath, value: object) -> str:
    rule = all_keys().leaves[path]
    text = f"{'.'.join(path)} = {shown(value)} is not {takes(rule)}"
    word = "off" if value is False else str(value)
    near = difflib.get_close_matches(word, allowed_words(rule), 1)
    if near:
        return f"{text}; did you mean {near[0]}?"
    if takes_null(rule) and word.lower() in _OFF_WORDS:
        return f"{text}; null switches it off"
    return text


def _key_path(loc: tuple[str | int, ...]) -> KeyPath:
    """The part of pydantic's location that names keys (after it come list indices and union members)."""
    path: KeyPath = ()
    for part in loc:
        if not isinstance(part, str) or part not in all_keys().sections.get(path, ()):
            break
        path = (*path, part)
    return path


def _looked_up(values: object, path: KeyPath, default: object) -> object:
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return default
        values = values[name]
    return values


def _in_full(line: str, section: KeyPath) -> str:
    """`line` as a section's own check wrote it, from its first 'key = value' on, with the key's full name."""
    if not section:
        return line
    for match in re.finditer(r"(\w+) = ", line):
        if match[1] in all_keys().sections[section]:
            return f"{'.'.join(section)}.{line[match.start() :]}"
    return f"{'.'.join(section)}: {line}"


def _mentioned(text: str, section: KeyPath, places: Mapping[KeyPath, Place]) -> Place:
    """The last place where a key that `text` mentions was set: an override before the file."""
    words = {word.strip(",;:()") for word in text.split()}
    named = [
        place
        for path, place in places.items()
        if ".".join(path) in words or (path[:-1] == section and path[-1] in words)
    ]
    around = [places[section]] if section in places else list(places.values())[:1]
    return max(named or around, default=_NOWHERE)
