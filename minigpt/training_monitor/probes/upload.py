"""Small numbers of the host's, brought to the device without a wait."""

from collections.abc import Sequence

import torch
from torch import Tensor


def uploaded(values: Sequence[float] | Sequence[int], home: torch.device) -> Tensor:
    """The values as a 1-d tensor on `home`.

    To CUDA through pinned memory: from any other the driver may wait for the stream before it copies, and
    `torch.tensor(values, device=...)` always does. The pinned block is not used anew before the copy is done.
    """
    host = torch.tensor(values)
    if home.type == "cuda":
        host = host.pin_memory()
    return host.to(home, non_blocking=True)
