"""What the head and the loss take at the turn from the forward to the backward pass."""

from minigpt.planning.activations import FP32_BYTES
from minigpt.planning.workload import Workload


def logits_bytes(work: Workload) -> int:
    """In fp32: log-softmax, its gradient and the logits'; with z-loss the logits and theirs as well."""
    copies = 3 if work.model.z_loss_weight == 0.0 else 5
    return work.tokens * copies * FP32_BYTES * work.vocab_size
