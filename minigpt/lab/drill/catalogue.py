"""All scenarios, and those of a user's own files."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from minigpt.errors import ConfigError
from minigpt.lab.drill.controls import choices, loops, schedules, tasks
from minigpt.lab.drill.controls import data as control_data
from minigpt.lab.drill.faults import (
    beginnings,
    causality,
    data,
    growth,
    learning_rate,
    machine,
    numbers,
    optimizer,
    updates,
)
from minigpt.lab.drill.scenario import Control, Fault, Scenario

FAULTS: tuple[Fault, ...] = (
    *learning_rate.FAULTS,
    *updates.FAULTS,
    *beginnings.FAULTS,
    *numbers.FAULTS,
    *data.FAULTS,
    *causality.FAULTS,
    *optimizer.FAULTS,
    *growth.FAULTS,
    *machine.FAULTS,
)
CONTROLS: tuple[Control, ...] = (
    *schedules.CONTROLS,
    *control_data.CONTROLS,
    *loops.CONTROLS,
    *choices.CONTROLS,
    *tasks.CONTROLS,
)


def own_scenarios(folder: Path) -> list[Scenario]:
    """The lists FAULTS and CONTROLS of every Python file in `folder`.

    Raises:
        ConfigError: there is no such folder, or a file without either list.
    """
    if not folder.is_dir():
        raise ConfigError(f"--faults {folder}: there is no such folder")
    found: list[Scenario] = []
    for path in sorted(folder.glob("*.py")):
        name = f"own_faults_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        lists = [getattr(module, key) for key in ("FAULTS", "CONTROLS") if hasattr(module, key)]
        if not lists:
            raise ConfigError(f"--faults: {path} has no list named FAULTS or CONTROLS")
        found += [scenario for scenarios in lists for scenario in scenarios]
    return found


def check_names(scenarios: Sequence[Scenario]) -> None:
    """Raises ConfigError when two scenarios share a name: it is the name of their trace."""
    names = [scenario.name for scenario in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two scenarios are named {name}; give one of them another name")
