"""How much memory a training step needs, part by part, computed from the shape alone.

What a process holds before any model (Python, torch, a CUDA context) is not counted: it has already left the
available memory. `scripts/measure_memory.py` compares with real trainings.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from minigpt.model.count import num_matrix_parameters, num_parameters
from minigpt.planning.activations import (
    FP32_BYTES,
    attention_scores_bytes,
    kept_by_block,
    kept_by_model,
    whole_block,
)
from minigpt.planning.cpu_process import heap_bytes
from minigpt.planning.loss_memory import loss_bytes, waiting_bytes
from minigpt.planning.workload import Workload


@dataclass(frozen=True)
class MemoryReport:
    """Bytes of each part, and of all at the fullest moment of a step.

    That is the turn from the forward to the backward pass, with the gradients of earlier micro-batches; where there
    are none and the activations are small, the end of the backward pass.
    """

    parameters: int
    gradients: int
    optimizer_state: int
    cast_weights: int
    """16-bit copies of the matrices that autocast keeps until the backward pass is through."""
    residual: int
    norms: int
    attention: int
    mlp: int
    logits_and_loss: int
    backward_of_a_block: int
    """What it takes beside what was kept, as far as it outgrows the logits (gone by then): with activation
    checkpointing the block in full, compiled on a CPU the scores of attention's blocks of queries."""
    runtime: int
    """On a CPU: kernels' scratch memory and the holes that glibc's heap keeps between the tensors."""
    checkpoint_file: int
    """On disk, not in memory."""
    gradients_come_last: bool = False
    """Nothing is accumulated: while the activations are there, the gradients are not yet."""

    @property
    def activations(self) -> int:
        return self.residual + self.norms + self.attention + self.mlp + self.backward_of_a_block

    @property
    def fixed(self) -> int:
        """What does not depend on the micro-batch."""
        return self.parameters + self.gradients + self.optimizer_state + self.cast_weights

    @property
    def peak(self) -> int:
        return sum(size for _, size in self.parts())

    @property
    def _ends_fullest(self) -> bool:
        return self.gradients_come_last and self.gradients > self.activations + self.logits_and_loss

    def parts(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of what is there at the peak, and adds up to it."""
        yield "parameters (fp32)", self.parameters
        if not self.gradients_come_last or self._ends_fullest:
            yield "gradients (fp32)", self.gradients
        yield "optimizer state", self.optimizer_state
        if self.cast_weights:
            yield "16-bit weight copies", self.cast_weights
        if not self._ends_fullest:
            yield from self._passing_parts()
        if self.runtime:
            yield "kernels and heap (estimate)", self.runtime

    def _passing_parts(self) -> Iterator[tuple[str, int]]:
        yield "activations: residual stream", self.residual
        yield "activations: norms", self.norms
        if self.attention:
            yield "activations: attention", self.attention
            yield "activations: mlp", self.mlp
        if self.backward_of_a_block:
            yield "activations: one block at a time", self.backward_of_a_block
        yield "logits and loss", self.logits_and_loss


def memory_report(work: Workload) -> MemoryReport:
    """The memory of one training step of `work`, part by part."""
    config = work.model
    total = num_parameters(config, work.vocab_size)
    matrices = num_matrix_parameters(config)
    # DistributedDataParallel reduces in buckets that are a second copy of the gradients.
    gradients = FP32_BYTES * total * (2 if work.world_size > 1 else 1)
    # AdamW: two moments; Muon: one on the hidden matrices, AdamW on the rest.
    moments = 2 * total - (matrices if work.optimizer == "muon" else 0)
    cast_weights = 2 * matrices if work.precision != "off" else 0
    kept, loss = kept_by_model(work), loss_bytes(work)
    backward = work.tokens * _recomputed_bytes(work) + attention_scores_bytes(work) + waiting_bytes(work)
    come_last = not work.accumulates and work.world_size == 1
    return MemoryReport(
        parameters=FP32_BYTES * total,
        gradients=gradients,
        optimizer_state=FP32_BYTES * moments,
        cast_weights=cast_weights,
        residual=work.tokens * kept.residual,
        norms=work.tokens * kept.norms,
        attention=work.tokens * kept.attention,
        mlp=work.tokens * kept.mlp,
        logits_and_loss=loss,
        backward_of_a_block=max(0, backward - loss),
        runtime=_heap_bytes(work) if work.device_type == "cpu" else 0,
        checkpoint_file=FP32_BYTES * (total + moments),
        gradients_come_last=come_last,
    )


def _heap_bytes(work: Workload) -> int:
    return heap_bytes(work, work.tokens * kept_by_model(replace(work, recompute="off")).total)


def _recomputed_bytes(work: Workload) -> int:
    """What activation checkpointing holds more of the block it computes again, with its gradients; a token."""
    if work.recompute == "off":
        return 0
    gradients = FP32_BYTES * work.model.hidden_size
    gradients += work.activation_bytes * work.model.resolved_intermediate_size
    return whole_block(work).total - kept_by_block(work).total + gradients
