"""Who is absent, for how long, and whether that is unusual: the memory behind the rules about single parameters."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from minigpt.training_monitor.parameter_signals import ParameterFacts

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A part of a name that is a number: a layer's or an expert's."""
GAP_PATIENCE = 3
"""How many times its longest earlier absence a come-and-go parameter (expert, dropped layer) may be absent."""
EXPERTS = 3
"""Parts of a layer that are alike by name, from which on they are experts rather than steps of a sequence."""
SHOWN = 5
"""Names that fit in one line of evidence."""

Facts = dict[str, float | int | str | bool]


def kind(name: str) -> str:
    """What layers and experts have in common: `blocks.3.mlp.up.weight` -> `blocks.#.mlp.up.weight`."""
    return NUMBER.sub("#", name)


class Absence:
    """Counts, for each name, the judged steps in a row that it has been absent; steps not judged do not count.

    A name that was present is overdue after `patience` absent steps, later if its kind used to come and go;
    `late_start`: whether an absence before the first presence tells of that, too.
    """

    def __init__(self, patience: int, *, late_start: bool = False) -> None:
        self._patience = patience
        self._late_start = late_start
        self._present: set[str] = set()
        self._rows: dict[str, int] = {}
        self._gaps: dict[str, int] = {}
        self._accepted: set[str] = set()
        self._names: Sequence[str] = ()
        self._last: Sequence[bool | None] = ()
        self._flagged: list[str] = []
        self._clean = False

    def note_all_present(self, names: Sequence[str]) -> None:
        """Takes a step on which nothing was absent: the common case, made cheap."""
        if not self._clean or (names is not self._names and names != self._names):
            self.note(names, (False,) * len(names))

    def note(self, names: Sequence[str], absent: Sequence[bool | None]) -> None:
        """Takes one step: absent (True), present (False) or not to be judged (None), in the order of `names`."""
        if absent == self._last and (names is self._names or names == self._names):
            for name in self._flagged:
                self._rows[name] += 1
            return
        for name, flag in zip(names, absent, strict=True):
            if flag:
                self._rows[name] = self._rows.get(name, 0) + 1
            elif flag is not None:
                self._came(name)
        self._names, self._last = names, absent
        self._flagged = [name for name, flag in zip(names, absent, strict=True) if flag]
        self._clean = not any(absent) and None not in absent

    def _came(self, name: str) -> None:
        row = self._rows.pop(name, 0)
        if row and (self._late_start or name in self._present):
            self._gaps[kind(name)] = max(self._gaps.get(kind(name), 0), row)
        self._present.add(name)
        self._accepted.discard(name)

    @property
    def any_absent(self) -> bool:
        """Whether anything was absent when last judged."""
        return bool(self._rows)

    @property
    def present(self) -> Collection[str]:
        """Every name that was present at least once."""
        return self._present

    def row(self, name: str) -> int:
        """Judged steps in a row that this name has been absent."""
        return self._rows.get(name, 0)

    def gone(self) -> list[str]:
        """Names that were present once and are absent now, however briefly; not those whose kind comes and goes."""
        gone = [name for name in self._rows if name in self._present and name not in self._accepted]
        return [
            name for name in gone if not self.longest_gap(name) or self._rows[name] >= self.patience(name)
        ]

    def overdue(self) -> list[str]:
        """Names that were present once and have been absent for longer than they ever used to be."""
        return [name for name in self.gone() if self._rows[name] >= self.patience(name)]

    def patience(self, name: str) -> int:
        """Absent steps after which this name is overdue."""
        return self._patience + GAP_PATIENCE * self.longest_gap(name)

    def longest_gap(self, name: str) -> int:
        """The longest absence of its kind that ended."""
        return self._gaps.get(kind(name), 0)

    def never(self, steps: int) -> list[str]:
        """Names absent in every one of at least `steps` judged steps since the start, or since a rebase."""
        absent = [name for name in self._rows if name not in self._present and name not in self._accepted]
        return [name for name in absent if self._rows[name] >= max(steps, self.patience(name))]

    def rebase(self) -> None:
        """What is absent now, or goes before it is seen again, is meant to be, until it comes back."""
        self._accepted |= set(self._rows)
        self._present.clear()
        self._read_in_full()

    def state_dict(self) -> dict[str, Any]:
        return {
            "present": sorted(self._present),
            "rows": dict(sorted(self._rows.items())),
            "gaps": dict(sorted(self._gaps.items())),
            "accepted": sorted(self._accepted),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._present = set(state["present"])
        self._rows = dict(state["rows"])
        self._gaps = dict(state["gaps"])
        self._accepted = set(state["accepted"])
        self._read_in_full()

    def _read_in_full(self) -> None:
        """The next step takes no short way, however like the last one it is."""
        self._names, self._last, self._flagged, self._clean = (), (), [], False


def out_of_place(facts: ParameterFacts, never: Collection[str], alive: Collection[str]) -> list[str]:
    """Those of `never` that the rest of the model says should be alive; the others may be meant that way.

    A whole layer whose like is alive, or that lies below everything alive; a parameter whose like is alive in another
    layer (not an expert among experts: they come and go). An unused head or a copy is neither.
    """
    order = range(len(facts))
    alive_groups = {facts.groups[i] for i in order if facts.names[i] in alive}
    alive_group_kinds = {kind(group) for group in alive_groups}
    alive_likes = {_like(name) for name in alive}
    first_alive = next((i for i in order if facts.names[i] in alive), 0)
    found = []
    for i in order:
        name, group = facts.names[i], facts.groups[i]
        if name not in never:
            continue
        if group not in alive_groups:
            suspicious = i < first_alive or (kind(group) != group and kind(group) in alive_group_kinds)
        else:
            suspicious = len(NUMBER.findall(name)) == 1 and _like(name) in alive_likes
        if suspicious:
            found.append(name)
    return found


def without_experts(facts: ParameterFacts, absent: Collection[str]) -> set[str]:
    """Those of `absent` that are not experts (of at least EXPERTS alike in a layer) while others of theirs are there:
    a router may well leave one out for long, even for ever."""
    if all(len(NUMBER.findall(name)) < 2 for name in absent):
        return set(absent)
    alike: dict[str, list[str]] = {}
    for name in facts.names:
        alike.setdefault(_unnumbered(name), []).append(name)
    present = {name: any(other not in absent for other in alike[_unnumbered(name)]) for name in absent}
    return {name for name in absent if len(alike[_unnumbered(name)]) < EXPERTS or not present[name]}


def _unnumbered(name: str) -> str:
    """The same parameter of any expert in its layer: every number but the first is replaced."""
    first = NUMBER.search(name)
    return name if first is None else name[: first.end()] + NUMBER.sub("#", name[first.end() :])


def _like(name: str) -> str:
    """The same parameter of any layer: the first number is the layer's."""
    return NUMBER.sub("#", name, count=1)


def named(facts: ParameterFacts, names: Collection[str]) -> Facts:
    """Evidence about parameters: how many, which, and the layer nearest the output, where a cut backward begins."""
    found = [i for i in range(len(facts)) if facts.names[i] in names]
    if not found:
        return {}
    group = facts.groups[found[-1]]
    first = next(facts.names[i] for i in found if facts.groups[i] == group)
    shown = [facts.names[i] for i in found[:SHOWN]] + (["..."] if len(found) > SHOWN else [])
    return {
        "group": group,
        "parameter": first,
        "parameters": ", ".join(shown),
        "count": len(found),
        "of": len(facts),
    }
