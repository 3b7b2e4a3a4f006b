"""What one of several devices holds, by how much of the state is shared out among them: arithmetic only.

DDP: all of it on each. ZeRO-1: the optimizer's state is shared out; FSDP (ZeRO-3): weights and gradients as well,
gathered a block at a time (arXiv 1910.02054, section 5).
"""

from dataclasses import dataclass, replace

from minigpt.model.count import num_matrix_parameters, num_parameters
from minigpt.planning.activations import FP32_BYTES
from minigpt.planning.memory import memory_report
from minigpt.planning.workload import Workload

_BLOCKS_AT_A_TIME = 2
"""The one that computes and the one that is fetched."""


@dataclass(frozen=True)
class Share:
    """What one of `devices` holds and sends under a scheme."""

    scheme: str
    devices: int
    peak_bytes: int
    sent_bytes: int
    """By each device in a step, in rings: of gradients and weights."""


def shares(work: Workload, devices: int) -> list[Share]:
    """The three schemes over `devices`, each with the micro-batch of `work`."""
    alone = memory_report(replace(work, world_size=1))
    parameters = num_parameters(work.model, work.vocab_size)
    state, weights = alone.optimizer_state, alone.parameters
    rest = alone.peak - sum(size for name, size in alone.parts() if name in _SHARED_OUT)
    ring = (devices - 1) / devices
    reduced = int(2 * ring * FP32_BYTES * parameters)
    gathered = _largest_piece_bytes(work)
    return [
        Share("ddp", devices, rest + weights + 2 * weights + state, reduced),
        Share("zero-1", devices, rest + weights + 2 * weights + state // devices, reduced),
        Share(
            "fsdp",
            devices,
            rest + (2 * weights + state) // devices + _BLOCKS_AT_A_TIME * gathered,
            # Weights gathered forwards and backwards, gradients scattered.
            int(ring * parameters * (2 * work.activation_bytes + FP32_BYTES)),
        ),
    ]


_SHARED_OUT = ("parameters (fp32)", "gradients (fp32)", "optimizer state", "16-bit weight copies")


def _largest_piece_bytes(work: Workload) -> int:
    """A block, or the embedding where that is larger, as it is gathered, with its gradient."""
    block = num_matrix_parameters(work.model) // work.model.num_layers
    largest = max(block, work.vocab_size * work.model.hidden_size)
    return largest * (work.activation_bytes + FP32_BYTES)
