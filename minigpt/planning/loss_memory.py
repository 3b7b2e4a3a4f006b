"""What the head and the loss take at the turn from the forward to the backward pass, in chunks of tokens.

Follows `minigpt.model.fused_loss` line by line: which of its buffers are there at the same time.
"""

from minigpt.model.fused_loss import CHUNK_TOKENS
from minigpt.planning.activations import FP32_BYTES
from minigpt.planning.workload import Workload


def loss_bytes(work: Workload) -> int:
    """At the fullest moment of the loss, forwards or backwards."""
    return max(_forward_bytes(work), _backward_bytes(work))


def whole_logits_bytes(work: Workload) -> int:
    """What a loss over all logits at once would take: fp32 log-softmax, its gradient, the logits'."""
    return (3 if work.model.z_loss_weight == 0.0 else 5) * FP32_BYTES * work.tokens * work.vocab_size


def waiting_bytes(work: Workload) -> int:
    """After the loss: the gradient of a tied head waits for the embedding's, at the other end of the model."""
    return FP32_BYTES * _head(work) if work.model.tie_embeddings else 0


def _forward_bytes(work: Workload) -> int:
    a, head = work.activation_bytes, _head(work)
    chunk = min(CHUNK_TOKENS, work.tokens)
    logits = chunk * work.vocab_size
    casts = 0 if work.precision == "off" else a * (work.tokens * work.model.hidden_size + head)
    # Of the chunks so far, beside the hidden states themselves.
    gradients = (a + FP32_BYTES) * work.tokens * work.model.hidden_size
    if work.compiled:
        # The logits and their gradient, in the type of the products; the head's gradient and its sum.
        return casts + gradients + 2 * a * logits + 2 * FP32_BYTES * head
    # The chunk before leaves its log-probabilities, and beside fp32 its gradient, while the next is computed.
    before = FP32_BYTES + (a if work.precision != "off" else 0) if work.tokens > CHUNK_TOKENS else 0
    now = 2 * FP32_BYTES + (a if work.precision != "off" else 0)
    settled = FP32_BYTES + a + (a if work.precision != "off" else 0)
    computing = (before + now) * logits + FP32_BYTES * head
    adding_up = settled * logits + 3 * FP32_BYTES * head
    return casts + gradients + max(computing, adding_up)


def _backward_bytes(work: Workload) -> int:
    """The gradients of the hidden states and of the head, and what scaling the one and then the other takes."""
    stream, head = work.tokens * work.model.hidden_size, _head(work)
    wide = 0 if work.precision == "off" or work.compiled else FP32_BYTES * stream
    kept = work.activation_bytes * stream + FP32_BYTES * head
    return kept + FP32_BYTES * stream + max(wide, FP32_BYTES * head)


def _head(work: Workload) -> int:
    return work.vocab_size * work.model.hidden_size
