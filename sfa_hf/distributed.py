"""The end of a process that took part in distributed training."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def clean_end() -> Iterator[None]:
    """Close every process group when the body ends, and so their threads before the interpreter's end.

    A process group left open is torn down while the interpreter finalises, with its worker threads still
    running: one of them that then lets go of a tensor ends the process by SIGABRT. See docs/engines.md.

    After an error nothing is waited for: the other ranks may never come, and the launcher ends them.

    Example:
        >>> with clean_end():
        ...     trainer.train()
    """
    try:
        yield
    except BaseException:
        _close()
        raise
    if dist.is_available() and dist.is_initialized():
        # A rank that closes its connections early would fail a collective that another is still in.
        dist.barrier()
        _close()


def _close() -> None:
    if not (dist.is_available() and dist.is_initialized()):
        return
    if "deepspeed.comm" in sys.modules and sys.modules["deepspeed.comm"].is_initialized():
        sys.modules["deepspeed.comm"].destroy_process_group()
    if dist.is_initialized():
        dist.destroy_process_group()
    # Trainers and engines are cycles that hold their groups: collected, the groups join their threads now.
    gc.collect()
