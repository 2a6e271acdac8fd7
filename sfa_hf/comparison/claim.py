"""Which of several launches does a run: the first to lock it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sfa_hf.distributed.processes import from_first_process


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether the run is this launch's to do: no other is at it now. A collective call.

    The system lets go of the lock of a process that dies.

    Args:
        folder: of the run, which need not be there; the lock lies beside it.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    ours = from_first_process(lambda: _acquired(lock))
    try:
        yield ours
    finally:
        if lock.is_locked and not folder.exists():
            # a run that was refused writes nothing: its folder's parents go too if they are empty
            Path(lock.lock_file).unlink(missing_ok=True)
            with suppress(OSError):
                folder.parent.rmdir()
                folder.parent.parent.rmdir()
        lock.release()


def _acquired(lock: FileLock) -> bool:
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
