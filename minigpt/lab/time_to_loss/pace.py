"""Seconds a step of both recipes, taken in turn so that the machine's moods fall on both."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minigpt.config.load import load_config
from minigpt.lab.bench.contenders import Contender
from minigpt.lab.bench.match import assembled, play
from minigpt.lab.bench.shapes import Shape, Terms
from minigpt.lab.script import say
from minigpt.lab.time_to_loss.recipe import PEER, Recipe

TIMED_STEPS = 5


@dataclass(frozen=True)
class Paces:
    """Seconds a step, one figure a round."""

    peer: tuple[float, ...]
    ours: tuple[float, ...]


def paces_in_turn(recipe: Recipe, preset: str, rounds: int, compiled: bool, folder: Path) -> Paces:
    """Both recipes at the size of `preset`, in processes that stay alive and make a few steps in turn.

    Read from `folder` where they were measured there before.

    Raises:
        ContenderError: one could not take part.
    """
    kept = folder / f"pace_{recipe.file_word}.json"
    if kept.exists():
        values = json.loads(kept.read_text(encoding="utf-8"))
        return Paces(tuple(values["peer"]), tuple(values["ours"]))
    config = load_config(preset, recipe.overrides).config
    model, training = config.model, config.training
    sequences = training.tokens_per_step // model.context_length
    shape = Shape(
        preset,
        model.num_layers,
        model.hidden_size,
        model.num_heads,
        model.context_length,
        config.data.tokenizer.vocab_size,
        micro_batch_size=min(16, sequences),
        grad_accum_steps=max(1, sequences // 16),
        preset=preset,
    )
    terms = Terms(shape, compile=compiled, device="cuda" if torch.cuda.is_available() else "cpu")
    contenders = [Contender(PEER, PEER), Contender("minigpt-preset", "minigpt-preset", recipe.overrides)]
    with assembled(contenders, terms, threads=None, folder=folder / "pace", say=say) as field:
        match = play(field, rounds=rounds, steps=TIMED_STEPS, say=say)
    found = Paces(*(tuple(entry.seconds_per_step) for entry in match.entries))
    kept.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    return found
