"""YAML text -> plain values, with the place of each key; the scalars are those of YAML 1.2."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from minigpt.errors import ConfigError

KeyPath: TypeAlias = tuple[str, ...]
Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

_MAX_DEPTH = 20
_MAX_NUMBER_LENGTH = 100
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}")
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}\.?(?:{_DIGITS})?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, bool | float | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip
_PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


@dataclass(frozen=True, order=True)
class Place:
    """Where a value was written: sorts as the user reads, the file top down, then the overrides."""

    order: int
    where: str


@dataclass(frozen=True)
class Written:
    """What a user wrote: the nested values, and the place of every key."""

    values: dict[str, Value]
    places: dict[KeyPath, Place]


def scalar(text: str) -> Value:
    """The value of an unquoted scalar: `3e-4` is a number, `off` and `no` stay words, `1_000` is 1000."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _MAX_NUMBER_LENGTH:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def read_mapping(text: str, name: str) -> Written:
    """The mapping in `text`, read from the file `name`. Raises ConfigError with file and line."""
    places: dict[KeyPath, Place] = {}
    node = _compose(text, name)
    values = None if node is None else _value(node, name, (), places)
    if values is None:
        return Written({}, {})
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"the single value {values!r:.40}"
        raise ConfigError(
            f"{name}: holds {kind}, but a configuration is sections such as model: and training:"
        )
    return Written(values, places)


def read_value(text: str, name: str) -> Value:
    """The value of one `--set`: a scalar as it stands, or a quoted string, [list] or {mapping} in YAML."""
    stripped = text.strip()
    if not stripped.startswith(("[", "{", "'", '"')):
        return scalar(stripped)
    node = _compose(stripped, name)
    return None if node is None else _value(node, name, (), {})


class _Loader(yaml.BaseLoader):
    """Composes nodes without aliases (their expansion is unbounded) and without resolving any tag."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            problem = (
                f"a value starts with {sign}: put it in quotes (YAML's anchors and aliases are not read)"
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if self.depth >= _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, name: str) -> yaml.Node | None:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{_at(name, mark)}: not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _at(name: str, mark: yaml.Mark | None) -> str:
    return name if mark is None or name.startswith("--set") else f"{name}:{mark.line + 1}"


def _value(node: yaml.Node, name: str, path: KeyPath, places: dict[KeyPath, Place]) -> Value:
    if node.tag not in _PLAIN_TAGS:
        raise ConfigError(
            f"{_at(name, node.start_mark)}: the YAML tag {node.tag} is not read; write the plain value"
        )
    if isinstance(node, yaml.ScalarNode):
        text = _whole_text(node, name)
        return scalar(text) if node.style is None else text
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, name, (*path, str(index)), places) for index, item in enumerate(node.value)]
    values: dict[str, Value] = {}
    for key_node, value_node in node.value:
        where = _at(name, key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be a word")
        key = _whole_text(key_node, name)
        key_path = (*path, key)
        if key in values:
            first = places[key_path].where
            raise ConfigError(
                f"{where}: {'.'.join(key_path)} stands here for the second time; first at {first}"
            )
        places[key_path] = Place(key_node.start_mark.line + 1, where)
        values[key] = _value(value_node, name, key_path, places)
    return values


def _whole_text(node: yaml.ScalarNode, name: str) -> str:
    """The scalar's text; escapes that JSON writes for one character beyond U+FFFF are that character."""
    text: str = node.value
    try:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ConfigError(
            f"{_at(name, node.start_mark)}: half a character (a lone surrogate); write the whole character"
        ) from None
    if "\0" in whole:
        # No file name, field or word holds one, and the system's calls refuse it with a bare ValueError.
        raise ConfigError(f"{_at(name, node.start_mark)}: a NUL character inside a text; write it without")
    return whole
