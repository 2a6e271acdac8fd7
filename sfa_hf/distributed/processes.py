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
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def from_every_process(make: Callable[[], Result]) -> Result:
    """Call ``make`` on every process and return its own result; what one of them refuses is raised on all.

    The others would wait for that process in their next collective call, and the first process, which tells
    the user, would not know. A collective call; ``make`` itself makes none.

    Raises:
        ConfigError: this or one of the next two, of the first process that raised any.
        NotImplementedError: the same.
        OSError: the same.
    """
    if world_size() == 1:
        return make()
    box: list[Any] = [None, None]
    try:
        box[0] = make()
    except (ConfigError, NotImplementedError, OSError) as error:
        box[1] = error
    first = next(filter(None, everyones(box[1])), None)
    if first is not None:
        raise first from box[1]
    return box[0]


def everyones(value: Result) -> list[Result]:
    """What each process gives, by rank; a collective call."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all ranks, if there are several."""
    if dist.is_initialized():
        dist.barrier()
