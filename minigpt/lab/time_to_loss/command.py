"""The command line of `scripts/time_to_loss.py`."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from minigpt.errors import ConfigError
from minigpt.lab.script import say
from minigpt.lab.time_to_loss.curve import Curve
from minigpt.lab.time_to_loss.pace import Paces, paces_in_turn
from minigpt.lab.time_to_loss.recipe import PEER, Recipe, overrides_for, recipe_named
from minigpt.lab.time_to_loss.switches import SWITCHES, ablations
from minigpt.lab.time_to_loss.table import Bout, ablation_report, report
from minigpt.lab.time_to_loss.trained import trained


class Comparison:
    """Trainings of one preset's size, on its text, under the same terms."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._given, self.folder = given, folder

    def trained(self, recipe: Recipe, steps: int, seed: int) -> Curve:
        """The curve of a whole training; said when it begins."""
        given = self._given
        say(f"{recipe.name}, {steps} steps, seed {seed} ...")
        common = [f"training.compile={given.compile}", *given.set]
        overrides = overrides_for(
            recipe, given.config, common, steps=steps, seed=seed, micro_batch_size=given.micro_batch
        )
        return trained(
            recipe, given.config, overrides, seed, self.folder / f"{recipe.file_word}.{steps}.{seed}"
        )

    def bout(self, recipe: Recipe, peer: Recipe, seed: int, paces: Paces, lengths: Sequence[int]) -> Bout:
        """The peer and MiniGPT's trainings of `lengths` steps, at the paces that they had in turn."""
        theirs = replace(self.trained(peer, self._given.steps, seed), step_seconds=paces.peer)
        ours = [self.trained(recipe, length, seed) for length in lengths]
        return Bout(theirs, tuple(replace(curve, step_seconds=paces.ours) for curve in ours))


def run(arguments: Sequence[str], description: str) -> None:
    """Train what `arguments` ask for and print the table.

    Raises:
        MiniGPTError: a mistake of the user's, or a training that failed.
    """
    given = _parser(description).parse_args(arguments)
    if given.steps < 2 or any(not 0 < share <= 1 for share in given.shares):
        raise ConfigError(
            f"--steps {given.steps}, --shares {given.shares}: use 2 steps or more, shares of 0 to 1"
        )
    peer = recipe_named(given.peer)
    if not peer.is_peer:
        raise ConfigError(
            f"--peer {given.peer}: there is no such peer; use {PEER} or {PEER}:section.key=value,..."
        )
    recipe = recipe_named(given.recipe)
    with tempfile.TemporaryDirectory() as thrown_away:
        comparison = Comparison(given, (given.folder or Path(thrown_away)).absolute())
        if given.ablate is not None:
            lines = _ablate(comparison, recipe, given)
        else:
            lines = _compare(comparison, recipe, peer, given)
        print("\n" + "\n".join(lines))


def _compare(comparison: Comparison, recipe: Recipe, peer: Recipe, given: argparse.Namespace) -> list[str]:
    """The paces first: they say how many steps MiniGPT has time for. Then every seed."""
    comparison.folder.mkdir(parents=True, exist_ok=True)
    paces = paces_in_turn(recipe, given.config, given.rounds, given.compile == "on", comparison.folder)
    ratio = median([theirs / ours for theirs, ours in zip(paces.peer, paces.ours, strict=True)])
    lengths = given.lengths or [max(1, int(share * given.steps * ratio)) for share in given.shares]
    if given.pace_only:
        return [f"MiniGPT makes {ratio:.3f} steps while the peer makes one; in its time: {lengths} steps"]
    bouts = [comparison.bout(recipe, peer, seed, paces, lengths) for seed in given.seeds]
    return report(bouts, given.shares[0])


def _ablate(comparison: Comparison, recipe: Recipe, given: argparse.Namespace) -> list[str]:
    """Every switch against the recipe, seed by seed: neighbours in time, so that their paces can be compared."""
    changed = [
        Recipe(one.name, (*recipe.overrides, *one.overrides)) for one in ablations(given.ablate or None)
    ]
    if not changed:
        raise ConfigError(
            f"--ablate {' '.join(given.ablate)}: there is no such switch; there are {', '.join(SWITCHES)}"
        )
    curves: dict[str, list[Curve]] = {one.name: [] for one in (recipe, *changed)}
    for seed in given.seeds:
        for one in (recipe, *changed):
            curves[one.name].append(comparison.trained(one, given.steps, seed))
    return ablation_report(curves[recipe.name], [curves[one.name] for one in changed])


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="small", help="a preset's name or a YAML file (default: small)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for both (sizes, text)"
    )
    parser.add_argument(
        "--recipe", default="preset", metavar="NAME:KEY=VALUE,...", help="MiniGPT's (default: the preset)"
    )
    parser.add_argument(
        "--peer", default=PEER, metavar=f"{PEER}:KEY=VALUE,...", help="the peer's, with another rate, say"
    )
    parser.add_argument(
        "--steps", type=int, default=300, help="of the peer; with --ablate of all (default: 300)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[1 / 3], help="of the peer's time that MiniGPT gets"
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=None, help="MiniGPT's steps, instead of --shares"
    )
    parser.add_argument("--rounds", type=int, default=8, help="of the paces, in turn (default: 8)")
    parser.add_argument(
        "--pace-only",
        action="store_true",
        help="only measure the paces, for a later call with the same --folder",
    )
    parser.add_argument(
        "--micro-batch", type=int, default=16, metavar="N", help="sequences of one forward (default: 16)"
    )
    parser.add_argument("--compile", choices=("on", "off"), default="on", help="of both (default: on)")
    parser.add_argument(
        "--ablate",
        nargs="*",
        default=None,
        metavar="TEXT",
        help="switches with TEXT in their name; none: all",
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="keep the trainings here, and go on from there"
    )
    return parser
