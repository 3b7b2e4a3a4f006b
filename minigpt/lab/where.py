"""On what, and when, something was measured."""

import os
import platform
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
    """Every machine once, with its first and last day; the most frequent first, and how many had it if there are more.

    `places` are texts of `where`.
    """
    days: dict[str, list[str]] = {}
    for place in places:
        machine, _, day = place.rpartition(", ")
        days.setdefault(machine, []).append(day)
    said = sorted(((len(found), _between(machine, found)) for machine, found in days.items()), reverse=True)
    return "; ".join(text if len(said) == 1 else f"{count} on {text}" for count, text in said)


def _between(machine: str, days: list[str]) -> str:
    first, last = min(days), max(days)
    return f"{machine}, {first}{'' if first == last else f' to {last}'}" if machine else "a machine not noted"
