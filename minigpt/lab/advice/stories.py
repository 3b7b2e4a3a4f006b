"""The mistakes that users make: a setting, or a broken file among the texts."""

from dataclasses import dataclass

BASE = """\
model: {num_layers: 4, hidden_size: 48, num_heads: 4, context_length: 64}
data: {tokenizer: {kind: bytes}, validation_fraction: 0.1}
optimizer: {name: adamw, learning_rate: 1e-3}
schedule: {kind: cosine, warmup_steps: 30}
training: {max_steps: 300, tokens_per_step: 512, micro_batch_size: 8, mixed_precision: off, compile: off, device: cpu,
  eval_every_steps: 150, log_every_steps: 50, eval_tokens: 16384, sample_tokens: 0}
checkpoint: {every_steps: 100}
"""
"""What every run of a story has in common."""
BROKEN_BYTES = 3_500_000


@dataclass(frozen=True)
class Story:
    """A mistake and what the monitor should say of it."""

    name: str
    fault: tuple[str, ...]
    causes: tuple[str, ...]
    """Causes that are a right answer."""
    setting: tuple[str, ...] = ()
    """What the healthy run has too."""
    broken_bytes: int = 0
    """Size of a file of blanks among the texts."""


STORIES = (
    Story("learning rate x 300", ("optimizer.learning_rate=0.3",), ("learning_rate_too_high",)),
    Story("learning rate / 10,000", ("optimizer.learning_rate=1e-7",), ("learning_rate_too_low",)),
    Story(
        "no warm-up at a high rate",
        ("schedule.warmup_steps=0",),
        ("warmup_too_short",),
        ("schedule.warmup_steps=100", "optimizer.learning_rate=0.03", "model.qk_norm=true"),
    ),
    Story("weight decay 300", ("optimizer.weight_decay=300",), ("weight_decay_too_high",)),
    Story("initial weights x 50", ("model.init_std=1",), ("initialized_too_large",)),
    Story(
        "fp16, learning rate x 300,000",
        ("optimizer.learning_rate=300",),
        ("learning_rate_too_high", "fp16_overflow"),
        ("training.mixed_precision=fp16",),
    ),
    Story("clipped to a norm of 1e-6", ("training.max_grad_norm=1e-6",), ("clip_too_low",)),
    Story("eps of Adam 1", ("optimizer.eps=1",), ("eps_too_large",)),
    Story(
        "3/4 of the text is a file of blanks",
        (),
        ("degenerate_data",),
        ("training.tokens_per_step=256", "training.micro_batch_size=4"),
        BROKEN_BYTES,
    ),
)
