"""Who can take part, and how the command line names them."""

import difflib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import ConfigError, MissingExtraError

OURS = {
    "minigpt": "MiniGPT, the peers' model and AdamW",
    "minigpt-preset": "MiniGPT as its preset has it",
}
PEERS = {
    "nanogpt": "nanoGPT's recipe",
    "hf": "Hugging Face Llama, plain loop",
    "hf-trainer": "Hugging Face Llama, Trainer",
    "litgpt": "litgpt's GPT",
}
NEEDS = {"hf": ("transformers",), "hf-trainer": ("transformers", "accelerate"), "litgpt": ("litgpt",)}
DEFAULT = ("minigpt", "minigpt-preset", "nanogpt", "hf", "litgpt")
_NEXT_KEY = re.compile(r",(?=[a-z_]+\.)")
"""A comma before another section.key, and none within a list of values."""
_SPEC = re.compile(r"(?P<name>[a-z-]+)(?P<overrides>(:[^@]+)?)(?P<tree>(@.+)?)")


@dataclass(frozen=True)
class Contender:
    """One of the match: `minigpt`, `minigpt:section.key=value,...`, `minigpt@/another/tree`, `hf`, ..."""

    spec: str
    """As the user wrote it: what the tables call it."""
    name: str
    overrides: tuple[str, ...] = ()
    tree: Path | None = None
    """Folder with another version's package `minigpt` in it."""

    @property
    def is_ours(self) -> bool:
        return self.name in OURS


def contender(spec: str) -> Contender:
    """The contender that `spec` names.

    Raises:
        ConfigError: there is none such, or it cannot be had in that way.
    """
    found = _SPEC.fullmatch(spec)
    name = found["name"] if found else spec
    if found is None or name not in {**OURS, **PEERS}:
        near = difflib.get_close_matches(name, [*OURS, *PEERS], n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join([*OURS, *PEERS])}"
        raise ConfigError(f"--contenders {spec}: there is no such contender; {hint}")
    overrides = tuple(_NEXT_KEY.split(found["overrides"][1:])) if found["overrides"] else ()
    tree = Path(found["tree"][1:]).expanduser().absolute() if found["tree"] else None
    if name in PEERS and (overrides or tree):
        raise ConfigError(
            f"--contenders {spec}: only {' and '.join(OURS)} take :KEY=VALUE and @FOLDER; use {name}"
        )
    wrong = next((word for word in overrides if "=" not in word), None)
    if wrong is not None:
        raise ConfigError(f"--contenders {spec}: {wrong!r} sets nothing; use {name}:section.key=value,...")
    if tree is not None and not (tree / "minigpt" / "__init__.py").is_file():
        raise ConfigError(
            f"--contenders {spec}: {tree} has no package minigpt; give the folder that holds it"
        )
    return Contender(spec, name, overrides, tree)


def check_installed(one: Contender) -> None:
    """Nothing, where all that the contender needs is installed.

    Raises:
        MissingExtraError: a package is missing.
    """
    for package in NEEDS.get(one.name, ()):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"the contender {one.name}", package, "bench")


def chosen(specs: Sequence[str] | None) -> tuple[list[Contender], list[str]]:
    """Who takes part, and a line for each of the default ones that cannot: those asked for by name must.

    Raises:
        ConfigError: an unknown one, or the same twice.
        MissingExtraError: what one asked for needs is not installed.
    """
    if specs is not None:
        found = [contender(spec) for spec in specs]
        twice = next((spec for spec in specs if specs.count(spec) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"--contenders: {twice} stands there twice; once is enough, its rounds are many"
            )
        for one in found:
            check_installed(one)
        return found, []
    here, missing = [], []
    for one in map(contender, DEFAULT):
        try:
            check_installed(one)
            here.append(one)
        except MissingExtraError as error:
            missing.append(f"left out: {error}")
    return here, missing
