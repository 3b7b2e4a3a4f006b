"""Settings of attention_logit_growth, activation_growth, output_logit_growth and dead_units."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class ForwardGrowthConfig:
    """When numbers of the forward pass are called attention_logit_growth, activation_growth, output_logit_growth
    or dead_units. They are seen at the closer looks only; a look is the unit of persistence here."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether these four rules run."""
    first_step: int = 0
    """The first step at which these rules may interrupt; earlier they only note events."""
    attention_logit_max: float = 100.0
    """An attention logit above this look after look saturates the softmax (Kimi K2 clips at 100)."""
    attention_logit_large: float = 50.0
    """Above this it is also enough to have grown by attention_logit_growth and to be growing still."""
    attention_logit_growth: float = 6.0
    """Times the anchor; healthy runs at a high learning rate reach 60 and three or four times theirs."""
    activation_growth: float = 12.0
    """RMS of a block's output over its own anchor."""
    output_logit_rms: float = 20.0
    """RMS of the output logits, or size of the mean log partition, that is too large ..."""
    output_logit_growth: float = 5.0
    """... when it is also this many times its own anchor."""
    dead_unit_rise: float = 0.3
    """Share of a block's feed-forward units that died since the anchor."""
    persist_looks: int = 2
    """Looks in a row that make a finding sustained (attention_logit_max: three more)."""
    anchor_looks: int = 2
    """Looks, from warm-up's end, whose median is the anchor."""
    close_looks: int = 3
    """Normal looks in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        name = "forward_growth"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        for field in ("attention_logit_max", "attention_logit_large", "output_logit_rms"):
            require(getattr(self, field) > 0, f"{name}.{field}", getattr(self, field), "> 0")
        for field in ("attention_logit_growth", "activation_growth", "output_logit_growth"):
            require(getattr(self, field) > 1, f"{name}.{field}", getattr(self, field), "> 1")
        require(
            0 < self.dead_unit_rise <= 1,
            f"{name}.dead_unit_rise",
            self.dead_unit_rise,
            "above 0 and at most 1",
        )
        for field in ("persist_looks", "anchor_looks", "close_looks"):
            require(getattr(self, field) >= 1, f"{name}.{field}", getattr(self, field), ">= 1")
