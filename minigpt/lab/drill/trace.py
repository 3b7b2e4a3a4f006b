"""A recorded training: every step's signals as plain values in a file, so that judging needs no training."""

import hashlib
import inspect
import io
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

import minigpt
from minigpt.atomic import atomic_path
from minigpt.errors import RecordError
from minigpt.lab.drill.scenario import Fault, Scenario
from minigpt.lab.drill.watch import Mark
from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

CLASSES = {
    found.__name__: found
    for found in (StepSignals, ParameterSignals, ParameterFacts, BatchFacts, Look, RunFacts)
}
RECORDED_BY = (
    "lab/drill/language.py",
    "lab/drill/setting.py",
    "lab/drill/training.py",
    "lab/drill/watch.py",
    "model",
    "training_monitor/facade.py",
    "training_monitor/causality.py",
    "training_monitor/causality_beat.py",
    "training_monitor/signals.py",
    "training_monitor/probes",
    "training_monitor/forward_look.py",
    "training_monitor/hooked_mode.py",
)
"""What a recording depends on, besides the scenario's own file."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded training."""

    scenario: str
    """Its name."""
    seed: int
    facts: RunFacts
    """What the monitor was told of the run."""
    signals: tuple[StepSignals, ...]
    marks: tuple[Mark, ...]
    test_loss: float
    """After the last step, on texts not trained on."""
    fingerprint: str
    """Of the code that recorded it."""

    def save(self, path: Path) -> None:
        shared: dict[int, Any] = {}
        content = {
            "scenario": self.scenario,
            "seed": self.seed,
            "facts": _plain(self.facts, shared),
            "signals": [_plain(signals, shared) for signals in self.signals],
            "marks": [tuple(mark) for mark in self.marks],
            "test_loss": self.test_loss,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.fingerprint.encode() + b"\n" + pickle.dumps(content))

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Raises RecordError where the file is no trace."""
        first_line, _, rest = path.read_bytes().partition(b"\n")
        shared: dict[int, Any] = {}
        try:
            content = _PlainUnpickler(io.BytesIO(rest)).load()
            return cls(
                content["scenario"],
                content["seed"],
                _revived(content["facts"], shared),
                tuple(_revived(signals, shared) for signals in content["signals"]),
                tuple(Mark(*mark) for mark in content["marks"]),
                content["test_loss"],
                first_line.decode(),
            )
        # What a damaged or hostile pickle raises has no common type.
        except Exception as error:
            raise RecordError(f"{path} is no trace of a drill: {error!s:.120}; delete it") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, words and their collections; a file from elsewhere can run no code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a trace holds plain values only, not {module}.{name}")


def trace_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}.{seed}.trace"


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint of a trace's file, without reading the rest; None: there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.readline().decode(errors="replace").strip()


def _plain(value: Any, shared: dict[int, Any]) -> Any:
    """Dataclasses as dictionaries with their class's name; one that many steps share stays one object."""
    if is_dataclass(value) and not isinstance(value, type):
        if id(value) not in shared:
            content = {field.name: _plain(getattr(value, field.name), shared) for field in fields(value)}
            # The original is kept as well: its id must not be given to another object.
            shared[id(value)] = ({"class": type(value).__name__, **content}, value)
        return shared[id(value)][0]
    if isinstance(value, Mapping):
        return {key: _plain(entry, shared) for key, entry in value.items()}
    return value if not isinstance(value, (list, tuple)) else tuple(value)


def _revived(value: Any, shared: dict[int, Any]) -> Any:
    """The reverse; fields that no longer exist are dropped, new ones have their default."""
    if not isinstance(value, dict) or "class" not in value:
        return value
    if id(value) not in shared:
        kind = CLASSES[value["class"]]
        known = {field.name for field in fields(kind)}
        content = {name: _revived(entry, shared) for name, entry in value.items() if name in known}
        shared[id(value)] = kind(**content)
    return shared[id(value)]


def fingerprint(scenario: Scenario) -> str:
    """Changes with anything that would change a recording."""
    sources = hashlib.sha256(torch.__version__.encode())
    package = Path(minigpt.__file__).parent
    for entry in RECORDED_BY:
        place = package / entry
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if path.is_file():
                sources.update(path.read_bytes())
    for kind in type(scenario).__mro__[:-1]:
        if kind not in (Scenario, Fault) and kind.__module__ in sys.modules:
            sources.update(inspect.getsource(kind).encode())
    sources.update(_identity(scenario).encode())
    return sources.hexdigest()


def _identity(scenario: Scenario) -> str:
    """The scenario's values, without those that only the judge reads."""
    judged = {"labels", "symptoms", "slow", "lasting", "seeds", "healthy", "alone", "event_is_enough"}
    return repr({f.name: getattr(scenario, f.name) for f in fields(scenario) if f.name not in judged})
