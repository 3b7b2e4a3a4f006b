"""The optimizer and the learning rate over time."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from minigpt.schema import Config, Float, Int

_MOST = 1e15
"""Far beyond use; torch does not take what is beyond fp32, and these are multiplied."""
Beta = Annotated[Float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """What turns gradients into updates."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw: the reference; muon: Muon on the hidden matrices (update RMS matched to AdamW's), AdamW on the rest."""
    learning_rate: Annotated[Float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    embedding_learning_rate_ratio: Annotated[Float, Field(gt=0)] = 1.0
    """Learning rate of embeddings and head over learning_rate; small models on short runs like 3-10."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW's decay of the first and second moment."""
    eps: Annotated[Float, Field(gt=0)] = 1e-8
    """AdamW's denominator floor; gradients near it stop training a layer (arXiv 2309.14322)."""
    weight_decay: Annotated[Float, Field(ge=0)] = 0.1
    """Decoupled weight decay, on matrices only (no norms, no embedding)."""

    @model_validator(mode="after")
    def _check_products_fit(self) -> Self:
        for name in ("learning_rate", "embedding_learning_rate_ratio", "weight_decay"):
            if getattr(self, name) > _MOST:
                raise ValueError(f"{name} = {getattr(self, name)} is beyond all use; set {_MOST:g} or less")
        return self


class ScheduleConfig(Config):
    """The learning rate over the steps: linear warm-up, then the chosen decay."""

    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """cosine | linear: decay to the end; constant; wsd: stable, then linear decay (arXiv 2404.06395)."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 100
    """Steps of linear warm-up; users' advice: 5-10 % of all steps."""
    min_lr_ratio: Annotated[Float, Field(ge=0, le=1)] = 0.1
    """Learning rate at the last step over its peak."""
    decay_ratio: Annotated[Float, Field(gt=0, le=1)] = 0.2
    """Share of the steps that wsd spends decaying."""
