"""Rank, number of processes, and decisions of one process for all; without a process group: one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from sfa_hf.errors import ConfigError

Result = TypeVar("Result")


def rank() -> int:
    """Return the index of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first_process(make: Callable[[], Result]) -> Result:
    """Call ``make`` only on process 0, and return its result, or raise its ConfigError, on every process."""
    if world_size() == 1:
        return make()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = make()
        except ConfigError as error:
            box[1] = (error.key, error.problem, error.right)
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise ConfigError(*box[1])
    return box[0]


def barrier() -> None:
    """Wait for all ranks, if there are several."""
    if dist.is_initialized():
        dist.barrier()
