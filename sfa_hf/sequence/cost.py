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
    hosts, devices = zip(*gather_object([(host, device)]), strict=True)
    cost["peak_host_bytes"] = max(cost.get("peak_host_bytes", 0), *hosts)
    cost["peak_device_bytes"] = max(cost.get("peak_device_bytes", 0), *devices)
