"""All experiments: a new one is its own file and a line here; one of a user's own is its file alone."""

import importlib
import importlib.util
import sys
from pathlib import Path

from minigpt.errors import ConfigError
from minigpt.lab.experiments.experiment import Experiment

_OWN = "own_experiment"
"""The module that a user's file becomes, in every process."""


def experiment_named(name: str) -> Experiment:
    """The one that stands in the module of that name."""
    found = importlib.import_module(f"minigpt.lab.experiments.{name}").EXPERIMENT
    assert isinstance(found, Experiment)
    return found


def experiment_in(path: Path) -> Experiment:
    """The EXPERIMENT of a Python file.

    Raises:
        ConfigError: there is no such file, or it holds none.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; give a Python file with an EXPERIMENT in it")
    spec = importlib.util.spec_from_file_location(_OWN, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_OWN] = module
    spec.loader.exec_module(module)
    found = getattr(module, "EXPERIMENT", None)
    if not isinstance(found, Experiment):
        raise ConfigError(
            f"{path} has no EXPERIMENT of the class minigpt.lab.experiments.experiment.Experiment; "
            "minigpt/lab/experiments/stability.py is a model to follow"
        )
    return found
