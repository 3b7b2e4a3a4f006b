"""Length, batch, precision and rhythm of a run."""

from typing import Annotated, Literal

from pydantic import Field

from minigpt.schema import Config, Float, Int, OnOff

Steps = Annotated[Int, Field(ge=1)]


class TrainingConfig(Config):
    """Length, batch, precision and rhythm of a run."""

    max_steps: Steps = 1000
    """Optimizer steps of the whole run."""
    tokens_per_step: Annotated[Int, Field(ge=1)] = 8192
    """Tokens of one optimizer step over all ranks: a multiple of micro_batch_size x context_length x world_size."""
    micro_batch_size: Literal["auto"] | Steps = "auto"
    """Sequences of one forward on one rank; auto: the largest that memory allows."""
    mixed_precision: Annotated[Literal["auto", "bf16", "fp16", "off"], OnOff] = "auto"
    """auto: bf16 where the hardware is fast at it, else fp16 with GradScaler on older GPUs, else off."""
    compile: Annotated[Literal["auto", "on", "off"], OnOff] = "auto"
    """torch.compile; auto: after three steps, where what is left of the run wins back what compiling costs here."""
    activation_checkpointing: Annotated[Literal["off", "selective", "full", "on"], OnOff] = "off"
    """Compute in the backward pass again instead of keeping: selective: all but the products of matrices; full: all
    of each block, a third more work. on: the old word for full."""
    max_grad_norm: Annotated[Float, Field(gt=0)] | None = 1.0
    """Clip gradients to this global norm; null: no clipping."""
    eval_every_steps: Steps = 200
    """Steps between evaluations on the validation split."""
    eval_tokens: Annotated[Int, Field(ge=1)] | None = 131_072
    """Validation tokens of one evaluation; null: the whole split."""
    log_every_steps: Steps = 10
    """Steps between lines on the console and in training.log (metrics.jsonl has every step)."""
    sample_tokens: Annotated[Int, Field(ge=0)] = 200
    """Tokens of the text sample at the end of the run; 0: none."""
    seed: Annotated[Int, Field(ge=0, le=2**64 - 1)] = 0
    """Initial weights and dropout."""
    deterministic: Annotated[Literal["auto", "on", "off"], OnOff] = "auto"
    """Sums in the same order every time. auto: on a CPU; on: also on a GPU, slower."""
    keep_buffers: bool = True
    """On a CPU with glibc: big buffers stay mapped from step to step. Faster; the memory is given back at the end."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,4})?)$")] = "auto"
    """auto | cpu | cuda | cuda:N | mps; auto: cuda > mps > cpu."""
    check_grad_flow: bool = False
    """Sort all parameters into ok / zero / none gradients now and then."""
    check_grad_flow_every: Steps = 100
    """Steps between two gradient-flow checks."""

    @property
    def recompute(self) -> Literal["off", "selective", "full"]:
        """`activation_checkpointing` in today's words."""
        return "full" if self.activation_checkpointing == "on" else self.activation_checkpointing
