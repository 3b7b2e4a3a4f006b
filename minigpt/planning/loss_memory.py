"""What the head and the loss take at the turn from the forward to the backward pass."""

from minigpt.planning.activations import FP32_BYTES
from minigpt.planning.workload import Workload


def logits_bytes(work: Workload) -> int:
    """In fp32: log-softmax, its gradient and the logits'; with z-loss the logits and theirs as well.

    Compiled code keeps the head's product as it is, and makes its gradient in one pass.
    """
    if work.compiled:
        return work.tokens * 2 * work.activation_bytes * work.vocab_size
    copies = 3 if work.model.z_loss_weight == 0.0 else 5
    return work.tokens * copies * FP32_BYTES * work.vocab_size
