"""More trainings of each scenario, of sizes, languages, batches and seeds that no threshold was set on."""

import random
from dataclasses import fields, replace
from typing import Any

from minigpt.lab.drill.scenario import Fault, Scenario
from minigpt.lab.drill.setting import Setting
from minigpt.model.config import ModelConfig

DRAWN: dict[str, tuple[Any, ...]] = {
    "batch_size": (6, 8, 12, 16),
    "noise": (0.05, 0.15, 0.25),
    "vocab_size": (128, 256, 400),
}
"""Fields of the setting and what they are drawn from, where a scenario leaves them at their default."""
DRAWN_OF_MODEL: dict[str, tuple[Any, ...]] = {
    "num_layers": (4, 5, 6),
    "hidden_size": (48, 64, 96),
    "num_heads": (2, 4),
    "context_length": (64, 96),  # some scenarios have batches of 64 tokens
}
LANGUAGES = 1000


def unseen(scenario: Scenario, seed: int) -> Scenario:
    """The scenario with this seed alone, in a setting drawn by it; what makes the scenario what it is stays."""
    drawn = random.Random(f"{scenario.name} {seed}")
    chosen = {name: drawn.choice(values) for name, values in DRAWN.items()}
    chosen["language_seed"] = drawn.randrange(LANGUAGES)
    of_model = {name: drawn.choice(values) for name, values in DRAWN_OF_MODEL.items()}
    changed: dict[str, Any] = {"seeds": (seed,), "setting": _with(scenario.setting, chosen, of_model)}
    if isinstance(scenario, Fault) and scenario.healthy is not None:
        changed["healthy"] = _with(scenario.healthy, chosen, of_model)
    return replace(scenario, **changed)


def _with(setting: Setting, chosen: dict[str, Any], of_model: dict[str, Any]) -> Setting:
    """The setting with the chosen values, where it has the default ones."""
    usual = Setting()
    free = {
        field.name for field in fields(Setting) if getattr(setting, field.name) == getattr(usual, field.name)
    }
    sizes = {
        name: value
        for name, value in of_model.items()
        if getattr(setting.model, name) == getattr(usual.model, name)
    }
    model = ModelConfig.model_validate({**setting.model.model_dump(), **sizes})
    return replace(setting, model=model, **{name: value for name, value in chosen.items() if name in free})
