"""One training from its start to its end, in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from minigpt.errors import MiniGPTError
from minigpt.lab.time_to_loss.curve import Curve
from minigpt.lab.time_to_loss.recipe import Recipe

WARM_STEPS = 3
"""Not timed: they also pay for the first touch of every kernel and page."""


class TrainingFailedError(MiniGPTError):
    """A training of the comparison did not come to its end."""


def trained(recipe: Recipe, preset: str, overrides: Sequence[str], seed: int, folder: Path) -> Curve:
    """The curve of `recipe`; read from `folder` where it was trained there before by the same overrides.

    Raises:
        TrainingFailedError: it failed; its last words are named.
    """
    order, curve = folder / "order.json", folder / "curve.json"
    asked = json.dumps({"recipe": recipe.name, "preset": preset, "overrides": list(overrides)})
    if curve.exists() and order.exists() and order.read_text(encoding="utf-8") == asked:
        return Curve.load(curve)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if recipe.is_peer:
        words = {"config": preset, "overrides": list(overrides), "recipe": recipe.name, "curve": str(curve)}
        _run(["minigpt.lab.time_to_loss.peer", json.dumps(words)], recipe, folder)
        found = _without_warm_steps(Curve.load(curve))
    else:
        sets = [word for override in overrides for word in ("--set", override)]
        arguments = ["minigpt", "train", "--config", preset, "--run-dir", str(folder / "run"), *sets]
        _run(arguments, recipe, folder)
        found = _without_warm_steps(curve_of_run(folder / "run", recipe.name, seed))
        for checkpoint in (folder / "run").glob("*.pt"):
            checkpoint.unlink()
    found.save(curve)
    order.write_text(asked, encoding="utf-8")
    return found


def curve_of_run(run_dir: Path, recipe: str, seed: int) -> Curve:
    """The curve that a finished run's own records tell."""
    steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text("utf-8").splitlines()]
    losses = tuple(
        (event["step"], event["data"]["loss"]) for event in events if event["kind"] == "evaluation"
    )
    newest = max(run_dir.glob("checkpoint_step_*.pt"), key=lambda path: path.stat().st_mtime)
    weights = torch.load(newest, mmap=True, weights_only=True)["model_state_dict"]
    parameters = sum(weight.numel() for weight in weights.values())
    seconds = tuple(float(step["seconds"]) for step in steps)
    return Curve(recipe, seed, steps[-1]["step"], parameters, seconds, losses)


def _without_warm_steps(curve: Curve) -> Curve:
    seconds = curve.step_seconds[WARM_STEPS:] or curve.step_seconds
    return Curve(curve.recipe, curve.seed, curve.steps, curve.parameters, seconds, curve.losses)


def _run(module_and_arguments: Sequence[str], recipe: Recipe, folder: Path) -> None:
    tree = Path(__file__).parents[3]
    with (folder / "output.txt").open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", *module_and_arguments],
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(tree)},
            check=False,
        )
    if done.returncode:
        lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1][:300] if lines else "nothing"
        raise TrainingFailedError(
            f"the training of {recipe.name} ended with exit code {done.returncode}, and said: {said} "
            f"({folder / 'output.txt'})"
        )
