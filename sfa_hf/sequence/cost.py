"""What a run costs: seconds, and peaks of memory over all processes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch
from accelerate.utils import gather_object

# getrusage counts kilobytes on Linux and bytes on macOS.
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@contextmanager
def timed(cost: dict[str, float], key: str) -> Iterator[None]:
    """Add the block's wall time in seconds to ``cost[key]``."""
    started = perf_counter()
    yield
    cost[key] = cost.get(key, 0.0) + perf_counter() - started


def note_peaks(cost: dict[str, float]) -> None:
    """Raise the peaks in ``cost`` to the largest that any process has seen; a collective call."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    raise_to_largest(cost, peak_host_bytes=host, peak_device_bytes=device)


def raise_to_largest(cost: dict[str, float], **values: float) -> None:
    """Raise each named cost to the largest value that any process has; a collective call."""
    for everyones in gather_object([values]):
        for key, value in everyones.items():
            cost[key] = max(cost.get(key, 0), value)
