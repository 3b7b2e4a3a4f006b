"""What is trained: the peer's recipe and MiniGPT's, each as a configuration."""

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.errors import ConfigError

PEER = "nanogpt"
PEER_OVERRIDES = (
    "optimizer.name=adamw",
    "optimizer.learning_rate=1e-3",
    "optimizer.embedding_learning_rate_ratio=1",
    "optimizer.betas=[0.9,0.99]",
    "optimizer.weight_decay=0.1",
    "schedule.kind=cosine",
    "schedule.min_lr_ratio=0.1",
)
"""nanoGPT's settings for a small model (config/train_shakespeare_char.py; its train.py decays every matrix)."""
_PEER_WARMUP_FRACTION = 0.05
EVALUATIONS = 4


@dataclass(frozen=True)
class Recipe:
    """A name for the tables, and what it changes of the preset."""

    name: str
    overrides: tuple[str, ...] = ()

    @property
    def is_peer(self) -> bool:
        return self.name.split(":")[0] == PEER

    @property
    def file_word(self) -> str:
        """The name, fit for a file's."""
        return "".join(char if char.isalnum() else "_" for char in self.name)[:80]


def recipe_named(spec: str) -> Recipe:
    """`NAME` or `NAME:section.key=value,...`: the preset changed so; NAME is `nanogpt` for the peer, else free.

    Raises:
        ConfigError: what follows the colon changes nothing.
    """
    name, colon, rest = spec.partition(":")
    overrides = tuple(_split(rest)) if colon else ()
    wrong = next((word for word in overrides if "=" not in word), None)
    if not name or wrong is not None or (colon and not overrides):
        raise ConfigError(f"--recipes {spec}: {wrong or spec!r} sets nothing; use NAME:section.key=value,...")
    return Recipe(spec, overrides)


def _split(words: str) -> list[str]:
    """At the commas that a new key=value follows: a list's own commas stay."""
    parts: list[str] = []
    for part in words.split(","):
        if parts and "=" not in part:
            parts[-1] += "," + part
        elif part:
            parts.append(part)
    return parts


def overrides_for(
    recipe: Recipe, preset: str, common: Sequence[str], *, steps: int, seed: int, micro_batch_size: int
) -> list[str]:
    """All overrides of `preset` for a training of `recipe`, `steps` long. Its warm-up keeps its share of the steps.

    Raises:
        ConfigError: some key or value is wrong.
    """
    sized = [
        *common,
        f"training.max_steps={steps}",
        f"training.seed={seed}",
        f"training.micro_batch_size={micro_batch_size}",
        f"training.eval_every_steps={max(1, -(-steps // EVALUATIONS))}",
        "training.sample_tokens=0",
        "checkpoint.every_steps=1000000",
        "checkpoint.every_minutes=null",
    ]
    plan = [*(PEER_OVERRIDES if recipe.is_peer else ()), *recipe.overrides]
    if not any(word.startswith("schedule.warmup_steps=") for word in plan):
        whole: RunConfig = load_config(preset, plan).config
        share = (
            _PEER_WARMUP_FRACTION
            if recipe.is_peer
            else whole.schedule.warmup_steps / whole.training.max_steps
        )
        sized.append(f"schedule.warmup_steps={max(1, round(share * steps))}")
    return [*sized, *plan]
