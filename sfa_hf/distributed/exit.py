"""The end of a process that took part in distributed training."""

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

# A thread that waits for the interpreter's lock wakes every 5 ms (sys.getswitchinterval): ten times that
# without a wake tells it from one that waits for work.
_QUIET_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 30.0


@contextmanager
def clean_end() -> Iterator[None]:
    """See gloo's worker threads idle when the body ends, then close every process group.

    A worker lets go of a collective's tensors after the collective has returned, for which it takes the
    interpreter's lock. If the interpreter has begun to finalise by then, that ends the thread, and with it
    the process, by SIGABRT: "terminate called without an active exception". If the group is being destroyed
    by then, both wait for each other. See docs/internals/process-end.md.

    After an error no rank is waited for and nothing is closed: the others may never come.

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
        # A rank that left early would break a collective that another is still in.
        dist.barrier()
    wait_for_gloo_workers()
    _close()


def wait_for_gloo_workers() -> None:
    """Wait until no worker of a gloo group runs or waits for the interpreter's lock.

    Destroying a group does not do it: its threads are joined when the last reference goes, and a DeepSpeed
    engine, which autograd's hooks keep alive, holds one to the end. Read from /proc: a no-op elsewhere.
    """
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    before: dict[str, str] | None = None
    while (now := _workers()) and (now != before or any("sleeping" not in state for state in now.values())):
        if time.monotonic() > deadline:
            _logger.warning("gloo's worker threads are still busy: this process may abort when it exits")
            return
        before = now
        time.sleep(_QUIET_SECONDS)  # gives up the interpreter's lock


def _is_open() -> bool:
    return dist.is_available() and dist.is_initialized()


def _close() -> None:
    comm = sys.modules.get("deepspeed.comm")
    if _is_open() and comm is not None and comm.is_initialized():
        comm.destroy_process_group()  # torch's too, and DeepSpeed's own references to them
    if _is_open():
        dist.destroy_process_group()


def _workers() -> dict[str, str]:
    """State and switch counts of gloo's worker threads, by thread id."""
    found = {}
    for thread in _THREADS.glob("*"):
        status = _status(thread)
        if status and status[0].split()[-1] == _GLOO_WORKER:
            found[thread.name] = " ".join(
                line for line in status if line.startswith(("State", "volun", "nonvol"))
            )
    return found


def _status(thread: Path) -> list[str]:
    """The lines of a thread's status; none if it has ended since it was listed."""
    try:
        return (thread / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
