"""Which process this is, and what one of them decides for all; one process alone needs no process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

Result = TypeVar("Result")


def rank() -> int:
    """This process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first_process(make: Callable[[], Result]) -> Result:
    """What ``make`` returns on process 0, on every process; only process 0 calls it."""
    box = [make() if rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait for all ranks, where there are several."""
    if dist.is_initialized():
        dist.barrier()
