"""On what, and when, something was measured."""

import os
import platform
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import torch

from minigpt.distributed.device import device_title
from minigpt.training.environment import cpu_model


def where(device: torch.device) -> str:
    """Hardware, software and today's date (UTC)."""
    title = device_title(device) if device.type == "cuda" else f"{os.cpu_count()} cores of {cpu_model()}"
    return (
        f"{title}, torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, "
        f"{datetime.now(UTC).date().isoformat()}"
    )


def all_of(places: Iterable[str]) -> str:
    """Each once, the most frequent first, and how many had it where there are several."""
    counts = Counter(place or "nobody knows where" for place in places)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{count} on {place}" for place, count in counts.most_common())
