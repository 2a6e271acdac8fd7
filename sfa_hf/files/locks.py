"""Locks that die with their owner: the system lets go of them when the process that holds them ends.

flock(2), which the file server keeps for all its hosts on NFS (Linux 2.6.12 on), and on Lustre mounted with
``-o flock``. filelock empties the file that it locks, so that it could not tell who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

logger = logging.getLogger(__name__)

INNER_LOCK = ".lock"
"""Name of a folder's lock where nothing can be written beside the folder."""
_HELD: set[int] = set()
"""Descriptors of this process's locks. A child that it forks closes its copies, and so holds no lock on."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@contextmanager
def locked(folder: Path) -> Iterator[str | None]:
    """Lock a folder, which need not be there, against every other process that asks for the same.

    The lock file lies beside the folder and is removed with the folders made for it, where they are empty.

    Yields:
        None; or who holds the lock already: "process PID on HOST since TIME".
    """
    real = Path(os.path.realpath(folder))
    made = _make_folders(real.parent)
    beside = real.with_name(f".{real.name}.lock")
    file = beside if os.access(real.parent, os.W_OK) else real / INNER_LOCK
    descriptor = _locked_file(file)
    try:
        yield _holder(file) if descriptor is None else None
    finally:
        if descriptor is not None:
            with suppress(FileNotFoundError):
                file.unlink()
            release(descriptor)
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()


def try_lock(descriptor: int) -> bool:
    """Whether the open file or folder is now this process's; OSError where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    _HELD.add(descriptor)
    return True


def release(descriptor: int) -> None:
    """Close a file, and give its lock back if this process has it."""
    _HELD.discard(descriptor)
    os.close(descriptor)


def _locked_file(file: Path) -> int | None:
    """The descriptor of the file, locked and telling who holds it; None where another process has it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            ours = try_lock(descriptor)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            logger.warning("%s cannot be locked (%s): start one launch at a time", file, error.strerror)
            ours = True
        if not ours:
            os.close(descriptor)
            return None
        if _is_named(descriptor, file):  # not removed by its owner after it was opened here
            break
        release(descriptor)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    owner = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(owner).encode())
    return descriptor


def _is_named(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads(file.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    return "another process"  # which is about to write its name, or to end


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; the ones that were not there, from the top."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return missing[::-1]


def _let_go() -> None:
    for descriptor in _HELD:
        with suppress(OSError):
            os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)
