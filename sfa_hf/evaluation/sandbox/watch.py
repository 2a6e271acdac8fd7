"""What a process and its descendants use together, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Of a tree of processes.

    Attributes:
        processes: how many there are.
        bytes: memory that they hold in RAM, without what is shared with files.
    """

    processes: int
    bytes: int


def usage(pid: int) -> Usage:
    """What ``pid`` and its descendants use now."""
    found = [_resident(each) for each in descendants(pid)]
    return Usage(len(found), sum(found))


def descendants(pid: int) -> Iterator[int]:
    """``pid`` and the processes below it; one may end while it is looked at."""
    yield pid
    for thread in _listed(Path(f"/proc/{pid}/task")):
        for child in _read(thread / "children").split():
            yield from descendants(int(child))


def _resident(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return (int(fields[1]) - int(fields[2])) * _PAGE if fields else 0


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
