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
    """Close every process group when the body ends, and see gloo's worker threads idle.

    A worker thread lets go of a collective's tensors after the collective has returned. If the interpreter
    has begun to finalise by then, taking its lock ends the thread, and with it the process, by SIGABRT:
    "terminate called without an active exception". See docs/engines.md.

    After an error no rank is waited for: the others may never come, and the launcher ends them.

    Example:
        >>> with clean_end():
        ...     trainer.train()
    """
    try:
        yield
    except BaseException:
        _close()
        raise
    if _is_open():
        # A rank that left early would break a collective that another is still in.
        dist.barrier()
    _close()


def _is_open() -> bool:
    return dist.is_available() and dist.is_initialized()


def _close() -> None:
    if _is_open():
        comm = sys.modules.get("deepspeed.comm")
        if comm is not None and comm.is_initialized():
            comm.destroy_process_group()  # torch's too, and DeepSpeed's own references to them
    if _is_open():
        dist.destroy_process_group()
    # Also of groups that the body closed itself: closing does not join their threads.
    _wait_for_idle_workers()


def _wait_for_idle_workers() -> None:
    """Wait until no worker of a gloo group runs or waits for the interpreter's lock.

    Destroying a group does not join its threads while anything refers to it, and a DeepSpeed engine, which
    autograd's hooks keep alive, always does. Read from /proc: Linux only, like DeepSpeed.
    """
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    before: dict[str, str] | None = None
    while (now := _workers()) and (now != before or any("sleeping" not in state for state in now.values())):
        if time.monotonic() > deadline:
            _logger.warning("gloo's worker threads are still busy: this process may abort when it exits")
            return
        before = now
        time.sleep(_QUIET_SECONDS)  # gives up the interpreter's lock


def _workers() -> dict[str, str]:
    """State and switch counts of gloo's worker threads, by thread id."""
    found = {}
    for thread in _THREADS.glob("*"):
        status = (thread / "status").read_text().splitlines()
        if status[0].split()[-1] == _GLOO_WORKER:
            found[thread.name] = " ".join(
                line for line in status if line.startswith(("State", "volun", "nonvol"))
            )
    return found
