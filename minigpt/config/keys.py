"""Which keys a configuration has and what each takes, read from RunConfig's JSON schema."""

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minigpt.config.json_schema import json_schema
from minigpt.config.yaml_text import KeyPath

Rule = Mapping[str, Any]

_MAX_NAME = 60


@dataclass(frozen=True)
class Keys:
    """All keys of RunConfig: sections hold keys, leaves hold values (each with its schema)."""

    sections: Mapping[KeyPath, tuple[str, ...]]
    leaves: Mapping[KeyPath, Rule]


@functools.cache
def all_keys() -> Keys:
    """Every section and leaf of RunConfig, in the order of the classes."""
    schema = json_schema()
    sections: dict[KeyPath, tuple[str, ...]] = {}
    leaves: dict[KeyPath, Rule] = {}

    def walk(path: KeyPath, rule: Rule) -> None:
        rule = _resolved(rule, schema.get("$defs", {}))
        if "properties" not in rule:
            leaves[path] = rule
            return
        sections[path] = tuple(rule["properties"])
        for name, child in rule["properties"].items():
            walk((*path, name), child)

    walk((), schema)
    return Keys(sections, leaves)


def unknown_key(path: KeyPath) -> str:
    """One sentence on a key that does not exist: the nearest right one, or all that its section has."""
    keys = all_keys()
    path = tuple(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..." for name in path)
    parent = path[:-1]
    siblings = keys.sections[parent]
    near = difflib.get_close_matches(path[-1], siblings, 1)
    if near:
        hint = f"did you mean {near[0]}?"
    elif elsewhere := _elsewhere(path[-1]):
        hint = f"did you mean {elsewhere}?"
    else:
        hint = f"{'.'.join(parent) if parent else 'a configuration'} has {', '.join(siblings)}"
    return f"{'.'.join(path)} is not a key; {hint}"


def takes(rule: Rule) -> str:
    """What a leaf takes, in words: 'a whole number >= 1 or null'."""
    if "anyOf" in rule:
        return " or ".join(takes(option) for option in rule["anyOf"])
    if "enum" in rule or "const" in rule:
        words = [_word(value) for value in rule.get("enum", [rule.get("const")])]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    kind = rule.get("type")
    if rule.get("minLength"):
        return "text that is not empty"
    if kind == "array":
        items = rule.get("prefixItems")
        return (
            f"a list of {len(items)}, each {takes(items[0])}"
            if items
            else f"a list, each {takes(rule['items'])}"
        )
    if "pattern" in rule:
        return str(rule.get("description", f"text like {rule['pattern']}")).rstrip(".")
    noun = {
        "integer": "a whole number", "number": "a number", "boolean": "true or false",
        "null": "null", "string": "text", "object": "a section of its own keys",
    }.get(str(kind), "a value it can take")  # fmt: skip
    return noun + _bounds(rule)


def allowed_words(rule: Rule) -> list[str]:
    """The literal words a leaf takes, for the nearest one to a mistyped word."""
    options: Iterable[Rule] = rule.get("anyOf", [rule])
    return [
        word
        for option in options
        for word in option.get("enum", [option["const"]] if "const" in option else [])
        if isinstance(word, str)
    ]


def takes_null(rule: Rule) -> bool:
    """Whether null is a value of this leaf (it means off, or decided by MiniGPT)."""
    return any(option.get("type") == "null" for option in rule.get("anyOf", [rule]))


def _resolved(rule: Rule, definitions: Mapping[str, Rule]) -> Rule:
    """`rule` with a reference to a definition replaced by it, here and in each option of an anyOf."""
    if "$ref" in rule:
        rest = {key: value for key, value in rule.items() if key != "$ref"}
        return {**_resolved(definitions[rule["$ref"].rsplit("/", 1)[-1]], definitions), **rest}
    if "anyOf" in rule:
        return {**rule, "anyOf": [_resolved(option, definitions) for option in rule["anyOf"]]}
    return rule


def _elsewhere(name: str) -> str | None:
    """The full name of the leaf or section called (almost) `name` in another section."""
    keys = all_keys()
    by_name: dict[str, str] = {}
    for path in [*keys.sections, *keys.leaves]:
        if path:
            by_name.setdefault(path[-1], ".".join(path))
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_name, 1, 0.85)
    return by_name[near[0]] if near else None


def _bounds(rule: Rule) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {rule[key]}" for key, sign in signs.items() if key in rule]
    return f" {' and '.join(parts)}" if parts else ""


def _word(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
