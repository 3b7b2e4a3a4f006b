"""Configurations as users get them wrong, and right: made from the JSON schema,
so a new key is among them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from minigpt.config.keys import all_keys
from minigpt.config.yaml_text import KeyPath
from minigpt.errors import on_one_line
from tests.fuzz.values import Rule, almost, spelled, valid


@dataclass(frozen=True)
class Case:
    """One configuration to try."""

    kind: str
    """What was done to it."""
    yaml: bytes
    """The file."""
    overrides: tuple[str, ...] = ()
    """What stands after each --set."""
    asked: tuple[tuple[KeyPath, str], ...] = ()
    """The keys that were set and the YAML of each, where the case is about known keys."""
    named: tuple[str, ...] = ()
    """One of these stands in a refusal; none: a place in the file does."""


Tree = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What all cases are laid over,
    and what stands in for the schema where training could not afford its values."""

    base: Mapping[str, Any]
    """Nested plain values: a run so small that it trains at once."""
    instead: Mapping[KeyPath, st.SearchStrategy[Any]]

    def path(self) -> st.SearchStrategy[KeyPath]:
        """A key; every section is as likely, however many keys it has."""
        sections: dict[str, list[KeyPath]] = {}
        for path in all_keys().leaves:
            sections.setdefault(path[0], []).append(path)
        return st.sampled_from(sorted(sections)).flatmap(lambda name: st.sampled_from(sections[name]))

    def value(self, path: KeyPath) -> st.SearchStrategy[str]:
        """YAML of a value that the schema allows for the key (or of one that training can afford)."""
        return self.instead.get(path, valid(all_keys().leaves[path])).map(spelled)

    def rendered(self, changes: Mapping[KeyPath, str]) -> bytes:
        """The base with these on top, one key a line."""
        tree: Tree = {}
        _put_all(tree, (), self.base)
        for path, text in changes.items():
            _put(tree, path, text)
        return ("\n".join(_lines(tree, 0)) + "\n").encode("utf-8", "surrogatepass")


def _put_all(tree: Tree, path: KeyPath, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _put_all(tree, (*path, name), value)
        else:
            _put(tree, (*path, name), spelled(value))


def _put(tree: Tree, path: KeyPath, text: str) -> None:
    for name in path[:-1]:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[path[-1]] = text


def _lines(tree: Tree, depth: int) -> list[str]:
    lines = []
    for name, value in tree.items():
        key = "  " * depth + (name if name.isidentifier() else json.dumps(name))
        lines += [f"{key}:", *_lines(value, depth + 1)] if isinstance(value, dict) else [f"{key}: {value}"]
    return lines


@st.composite
def one_value(draw: st.DrawFn, recipe: Recipe) -> Case:
    """One key at a value that its schema allows."""
    path = draw(recipe.path())
    return _written(draw, recipe, "a value that the schema allows", {path: draw(recipe.value(path))})


@st.composite
def several_values(draw: st.DrawFn, recipe: Recipe) -> Case:
    """Up to eight keys at once, each at a value that its schema allows."""
    paths = draw(st.lists(recipe.path(), min_size=2, max_size=8, unique=True))
    return _written(draw, recipe, "several such values", {path: draw(recipe.value(path)) for path in paths})


@st.composite
def almost_a_value(draw: st.DrawFn, recipe: Recipe) -> Case:
    """One key at something that looks like a value, and may be one."""
    path = draw(recipe.path().filter(lambda path: path not in recipe.instead))
    return _written(draw, recipe, "almost a value", {path: draw(almost(all_keys().leaves[path]))})


@st.composite
def misspelt(draw: st.DrawFn, recipe: Recipe) -> Case:
    """A key, or a section, with a slip of the finger in its name."""
    path = draw(recipe.path())
    at = draw(st.integers(0, len(path) - 1))
    name = draw(_slips(path[at]).filter(lambda name: (*path[:at], name) not in _known()))
    wrong = (*path[:at], name, *path[at + 1 :])
    case = _written(draw, recipe, "a misspelt key", {wrong: draw(recipe.value(path))})
    return Case(case.kind, case.yaml, case.overrides, named=(on_one_line(".".join(wrong[: at + 1])),))


@st.composite
def misplaced(draw: st.DrawFn, recipe: Recipe) -> Case:
    """A key that stands in another section than its own, or in none."""
    path = draw(recipe.path())
    section = draw(st.sampled_from([s for s in all_keys().sections if (*s, path[-1]) not in _known()]))
    wrong = (*section, path[-1])
    case = _written(draw, recipe, "a key in the wrong section", {wrong: draw(recipe.value(path))})
    return Case(case.kind, case.yaml, case.overrides, named=(".".join(wrong),))


@st.composite
def no_section(draw: st.DrawFn, recipe: Recipe) -> Case:
    """Something else where a section stands."""
    path = draw(st.sampled_from([section for section in all_keys().sections if section]))
    text = draw(
        st.sampled_from(["null", "", "[]", "[1]", "3", "'x'", "true", "{}", "{x: 1}", ".nan", "[{}]", "''"])
    )
    case = _written(draw, recipe, "a section of another type", {path: text})
    return Case(case.kind, case.yaml, case.overrides, named=(".".join(path), "data.source"))


@st.composite
def twice(draw: st.DrawFn, recipe: Recipe) -> Case:
    """A key that stands in the file twice."""
    path = draw(recipe.path())
    values = [draw(recipe.value(path)) for _ in range(2)]
    lines = recipe.rendered({path: values[0]}).decode("utf-8", "surrogatepass").splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() == f"{path[-1]}: {values[0]}")
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    lines.insert(first + 1, f"{indent}{path[-1]}: {values[1]}")
    text = "\n".join(lines) + "\n"
    return Case("a key twice", text.encode("utf-8", "surrogatepass"), named=(".".join(path),))


@st.composite
def broken_text(draw: st.DrawFn, recipe: Recipe) -> Case:
    """The file after an accident: cut, with bytes changed, in another encoding, with other line ends."""
    path = draw(recipe.path())
    text = recipe.rendered({path: draw(recipe.value(path))})
    for _ in range(draw(st.integers(1, 3))):
        text = draw(_accident(text))
    return Case("a damaged file", text)


@st.composite
def any_override(draw: st.DrawFn, recipe: Recipe) -> Case:
    """--set with anything at all."""
    path = draw(recipe.path())
    name, value = ".".join(path), draw(recipe.value(path))
    words = st.sampled_from(
        [
            name,
            "=",
            ".",
            "..",
            value,
            " ",
            "[",
            "]",
            "{",
            "'",
            '"',
            "\n",
            "\t",
            "#",
            ",",
            ":",
            "é",
            "\u00a0",
            "\x00",
            "--",
            "=",
        ]
    )
    texts = st.one_of(
        st.text(max_size=30),
        st.lists(words, max_size=8).map("".join),
        st.sampled_from(["", "=", "a=", "=1", "a.b.c=1", "a..b=1", ".=1", "..=1", "optimizer.betas=[0.9",
                         "data.source=[a,b", "training.max_steps==2", "model.=1", ".model=1", "model=",
                         " = ", "\udcff=1",
                         f"{name}.x=1", f"{name}=", f"{name}", f"{name}={value}={value}", f" {name} = {value} ",
                         f"--{name}={value}", f"{name}:{value}", "x" * 10_000 + "=1", f"{name}=" + "x" * 10_000]),
    )  # fmt: skip
    return Case(
        "--set with any text", recipe.rendered({}), tuple(draw(st.lists(texts, min_size=1, max_size=3)))
    )


def any_case(recipe: Recipe) -> st.SearchStrategy[Case]:
    """A case of any kind."""
    return st.one_of([make(recipe) for make in KINDS])


KINDS = (
    one_value,
    several_values,
    almost_a_value,
    misspelt,
    misplaced,
    no_section,
    twice,
    broken_text,
    any_override,
)


def _written(draw: st.DrawFn, recipe: Recipe, kind: str, changes: Mapping[KeyPath, str]) -> Case:
    """In the file or after --set, as drawn."""
    asked = tuple(changes.items())
    named = tuple(".".join(path) for path in changes)
    if draw(st.booleans()):
        return Case(kind, recipe.rendered(changes), (), asked, named)
    overrides = tuple(f"{'.'.join(path)}={text}" for path, text in changes.items())
    return Case(f"{kind}, --set", recipe.rendered({}), overrides, asked, named)


def _slips(name: str) -> st.SearchStrategy[str]:
    at = st.integers(0, len(name) - 1)
    return st.one_of(
        at.map(lambda i: name[:i] + name[i + 1 :]),
        at.map(lambda i: name[:i] + name[i] + name[i:]),
        st.sampled_from(
            [name.upper(), name.replace("_", "-"), name.replace("_", ""), name + "s", f" {name}", f"{name} "]
        ),
        st.text(
            st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="=."), min_size=1, max_size=12
        ),
    ).filter(lambda slip: bool(slip.strip()) and "." not in slip)


def _accident(text: bytes) -> st.SearchStrategy[bytes]:
    at = st.integers(0, max(0, len(text) - 1))
    odd = st.sampled_from(
        [b"\t", b"\x00", b"\xff", b"\r", b"\n", b":", b"- ", b"&a ", b"*a", b"!!x ", b"{", b"}", b"[",
        b"'", b'"', b"#",
         b"%", b"|", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1b", b"---\n", b"...\n", b"? ",
         b"<<: ", b"\xf0\x9f"]
    )  # fmt: skip
    return st.one_of(
        at.map(lambda i: text[:i]),
        st.tuples(at, odd).map(lambda drawn: text[: drawn[0]] + drawn[1] + text[drawn[0] :]),
        st.tuples(at, odd).map(lambda drawn: text[: drawn[0]] + drawn[1] + text[drawn[0] + 1 :]),
        st.tuples(at, st.integers(0, 255)).map(lambda d: text[: d[0]] + bytes([d[1]]) + text[d[0] + 1 :]),
        st.tuples(at, st.integers(0, 40)).map(lambda d: text[: d[0]] + text[d[0] + d[1] :]),
        st.just(text.replace(b"\n", b"\r\n")),
        st.just(text.replace(b"\n", b"\r")),
        st.just(b"\xef\xbb\xbf" + text),
        st.just(text.replace(b"  ", b"\t")),
        st.just(text.decode("utf-8", "replace").encode("utf-16")),
        st.just(text + b"# " + b"x" * 200_000),
        st.binary(max_size=40),
    )  # fmt: skip


def _known() -> set[KeyPath]:
    return {*all_keys().leaves, *all_keys().sections}


def rule_of(path: KeyPath) -> Rule:
    """The schema of a key."""
    return all_keys().leaves[path]
