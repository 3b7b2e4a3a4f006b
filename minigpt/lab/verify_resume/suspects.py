"""Why two runs of the same configuration differ: what the checkpoints say, and settings that may end it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint.files import checkpoint_path
from minigpt.lab.same_run import Comparison
from minigpt.training.environment import environment_differences
from minigpt.training_monitor.sinks.json_lines import read_json_lines

ONE_THREAD = "OMP_NUM_THREADS=1"


@dataclass(frozen=True)
class Remedy:
    """Something to try: settings and environment under which two runs may well be equal."""

    overrides: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    """NAME=value."""

    @property
    def environment(self) -> dict[str, str]:
        return dict(variable.split("=", 1) for variable in self.variables)

    @property
    def typed(self) -> str:
        """As it is typed: variables before the command, overrides behind."""
        return " ".join([*self.variables, *(f"--set {override}" for override in self.overrides)])

    def command(self, config_name: str, overrides: Sequence[str], steps: int) -> str:
        """The command that verifies resume with it, for a run that has `overrides` of its own."""
        keys = {override.partition("=")[0] for override in self.overrides}
        kept = [override for override in overrides if override.partition("=")[0] not in keys]
        sets = [word for override in (*kept, *self.overrides) for word in ("--set", override)]
        words = ["minigpt", "verify-resume", "--config", config_name, *sets, "--steps", str(steps)]
        return " ".join([*self.variables, shlex.join(words)])


def evidence(first: Path, second: Path, comparison: Comparison) -> list[str]:
    """What the two straight runs say themselves about why they differ, one line each."""
    states = [
        torch.load(
            checkpoint_path(folder, comparison.after), map_location="cpu", mmap=True, weights_only=True
        )
        for folder in (first, second)
    ]
    return [*_choices(*states), *_arithmetic(first, second, comparison)]


def _choices(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Choices that each run made for itself, and made otherwise."""
    lines = []
    sizes = [state["micro_batch_size"] for state in (first, second)]
    if sizes[0] != sizes[1]:
        lines.append(
            f"micro_batch_size auto found {sizes[0]} and {sizes[1]} (the free memory changed), and sums of other parts "
            f"round differently: --set training.micro_batch_size={min(sizes)}"
        )
    compiled = [state["position"].get("compiled_from") for state in (first, second)]
    if compiled[0] != compiled[1]:
        lines.append(
            "compile auto measures whether compiling pays, and chose differently: --set training.compile=on, or off"
        )
    if first["corpus"]["fingerprint"] != second["corpus"]["fingerprint"]:
        lines.append("the text changed between the two runs: point data.source at a copy that nobody changes")
    return lines + environment_differences(first["environment"], second["environment"])


def _arithmetic(first: Path, second: Path, comparison: Comparison) -> list[str]:
    """Where in a step the numbers part."""
    step = comparison.first_step
    if step is None:
        return []
    records = [
        {record.get("step"): record for record in read_json_lines(folder / "metrics.jsonl")}[step]
        for folder in (first, second)
    ]
    if records[0].get("loss") != records[1].get("loss"):
        before = (
            "the initial weights or the forward pass"
            if step == 1
            else "an earlier update or the forward pass"
        )
        return [f"the loss of step {step} differs already: {before} is not the same twice"]
    if records[0].get("grad_norm") != records[1].get("grad_norm"):
        return [
            f"the loss of step {step} is the same and its gradients are not: the backward pass adds up in another "
            "order each time (atomic adds on a GPU, threads on a CPU)"
        ]
    return []


def remedies(state: dict[str, Any], device_type: str) -> list[Remedy]:
    """What may make two runs equal on this device, the cheapest first; the last is all of it together."""
    found = []
    if state["environment"].get("deterministic") == "off":
        found.append(Remedy(("training.deterministic=on",)))
    if state["position"].get("compiled_from") is not None:
        found.append(Remedy(("training.compile=off",)))
    if device_type == "cpu" and state["environment"].get("threads") != "1":
        found.append(Remedy(variables=(ONE_THREAD,)))
    if len(found) > 1:
        overrides = tuple(override for remedy in found for override in remedy.overrides)
        found.append(Remedy(overrides, tuple(name for remedy in found for name in remedy.variables)))
    return found
