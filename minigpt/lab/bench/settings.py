"""The terms as MiniGPT's configuration."""

from typing import Any

from minigpt.data.config import DataConfig, TokenizerConfig
from minigpt.lab.bench.shapes import Terms

FAR = 10_000_000
"""Steps until something that is not a step: an evaluation, a checkpoint, the end. The peers have none either."""


def plain_settings(terms: Terms) -> dict[str, dict[str, Any]]:
    """A configuration with nothing switched on that the peers have not."""
    shape = terms.shape
    return {
        "model": {
            "num_layers": shape.num_layers,
            "hidden_size": shape.hidden_size,
            "num_heads": shape.num_heads,
            "context_length": shape.context_length,
        },
        "optimizer": {
            "learning_rate": terms.learning_rate,
            "betas": list(terms.betas),
            "weight_decay": terms.weight_decay,
        },
        "schedule": {"kind": "constant", "warmup_steps": terms.warmup_steps},
        "training": {"max_grad_norm": terms.max_grad_norm, "seed": terms.seed},
    }


def shape_overrides(terms: Terms) -> list[str]:
    """What turns a preset into one of the shape."""
    return [f"model.{key}={value}" for key, value in plain_settings(terms)["model"].items()]


def data_overrides(terms: Terms) -> list[str]:
    """The text and its tokens."""
    return [
        f"data.source={terms.source}",
        f"data.tokenizer.kind={terms.tokenizer}",
        *([f"data.tokenizer.vocab_size={terms.shape.vocab_size}"] if terms.tokenizer == "bpe" else []),
        *([] if terms.cache_dir is None else [f"data.cache_dir={terms.cache_dir}"]),
    ]


def data_config(terms: Terms) -> DataConfig:
    """The same for who has no configuration of MiniGPT's."""
    settings = {"kind": terms.tokenizer} | (
        {"vocab_size": terms.shape.vocab_size} if terms.tokenizer == "bpe" else {}
    )
    return DataConfig(
        source=terms.source, tokenizer=TokenizerConfig.model_validate(settings), cache_dir=terms.cache_dir
    )


def training_overrides(terms: Terms) -> list[str]:
    """The batch and the arithmetic, and nothing but steps."""
    shape = terms.shape
    return [
        f"training.max_steps={FAR}",
        f"training.eval_every_steps={FAR}",
        f"checkpoint.every_steps={FAR}",
        "checkpoint.every_minutes=null",
        f"training.tokens_per_step={shape.tokens_per_step}",
        f"training.micro_batch_size={shape.micro_batch_size}",
        f"training.mixed_precision={'bf16' if terms.precision == 'bf16' else 'off'}",
        f"training.compile={'on' if terms.compile else 'off'}",
        f"training.device={terms.device}",
    ]
