"""A clean end of a process that took part in distributed training."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

_logger = logging.getLogger(__name__)

_THREADS = Path("/proc/self/task")
_GLOO_WORKER = "pt_gloo_runloop"

# A thread that waits for the interpreter's lock wakes every 5 ms (sys.getswitchinterval). One that does not
# wake in ten times that time waits for work.
_QUIET_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 30.0


@contextmanager
def clean_end() -> Iterator[None]:
    """At the end of the body, wait until gloo's worker threads are idle, then close every process group.

    A worker releases the tensors of a collective after the collective has returned, and takes the
    interpreter's lock for this. If the interpreter is already finalising, the process aborts (SIGABRT,
    "terminate called without an active exception"). If the group is being destroyed, both wait for each
    other. See docs/internals/process-end.md.

    After an error it waits for no rank and closes nothing, because the other ranks may never arrive.

    Example:
        >>> with clean_end():
        ...     trainer.train()
    """
    try:
        yield
    except BaseException:
        wait_for_gloo_workers()
        raise
    if _is_open():
        # A rank that leaves early would break a collective that another rank is still in.
        dist.barrier()
    wait_for_gloo_workers()
    _close()


def wait_for_gloo_workers() -> None:
    """Wait until no worker thread of gloo runs or waits for the interpreter's lock.

    Destroying a group is not enough: its threads are joined when the last reference is gone, and a DeepSpeed
    engine, which autograd's hooks keep alive, holds one to the end. The state of the threads is read from
    /proc; on a system without /proc this does nothing.
    """
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    before: dict[str, str] | None = None
    while (now := _workers()) and (now != before or any("sleeping" not in state for state in now.values())):
        if time.monotonic() > deadline:
            _logger.warning("gloo's worker threads are still busy: this process may abort at its exit")
            return
        before = now
        time.sleep(_QUIET_SECONDS)  # gives up the interpreter's lock


def _is_open() -> bool:
    return dist.is_available() and dist.is_initialized()


def _close() -> None:
    comm = sys.modules.get("deepspeed.comm")
    if _is_open() and comm is not None and comm.is_initialized():
        comm.destroy_process_group()  # also torch's group, and DeepSpeed's references to it
    if _is_open():
        dist.destroy_process_group()


def _workers() -> dict[str, str]:
    """Return state and switch counts of gloo's worker threads by thread id."""
    found = {}
    for thread in _THREADS.glob("*"):
        try:
            status = (thread / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            continue
        if status and status[0].split()[-1] == _GLOO_WORKER:
            found[thread.name] = " ".join(
                line for line in status if line.startswith(("State", "volun", "nonvol"))
            )
    return found
