"""Which layer each parameter belongs to, for any model."""

from collections.abc import Iterable


def plain_name(name: str) -> str:
    """The parameter's name without the prefixes of DDP (`module.`) and torch.compile (`_orig_mod.`)."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    if len(parts) > 2 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def parameter_groups_by_layer(names: Iterable[str]) -> dict[str, str]:
    """Name -> layer group, in the given order: `transformer.h.3.mlp.up.weight` -> `transformer.h.3`.

    Up to the first number; without one, the module beside the numbered stack (`transformer.wte`), or the
    top-level module (`embedding`).
    """
    split = {name: plain_name(name).split(".") for name in names}
    stacks = {tuple(parts[: index - 1]) for parts in split.values() if (index := _first_number(parts)) > 0}
    return {name: _group(parts, stacks) for name, parts in split.items()}


def _first_number(parts: list[str]) -> int:
    return next((index for index, part in enumerate(parts) if part.isdigit()), -1)


def _group(parts: list[str], stacks: set[tuple[str, ...]]) -> str:
    number = _first_number(parts)
    if number >= 0:
        return ".".join(parts[: number + 1])
    beside = max((len(stack) for stack in stacks if tuple(parts[: len(stack)]) == stack), default=0)
    return ".".join(parts[: min(beside + 1, max(len(parts) - 1, 1))])
