"""What a process and its descendants use together, read from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# of /proc/PID/smaps_rollup: shared pages are divided by those who share them, so that a sum counts each once;
# of /proc/PID/status, for those who may not read the other: shared pages count once per process
_PROPORTIONAL = ("Pss_Anon", "Pss_Shmem", "SwapPss")
_WHOLE = ("RssAnon", "RssShmem", "VmSwap")


@dataclass(frozen=True)
class Usage:
    """Of a tree of processes.

    Attributes:
        tasks: how many processes and threads there are.
        bytes: memory that they hold, swapped out or not, without files' pages.
    """

    tasks: int
    bytes: int


def usage(pid: int) -> Usage:
    """What ``pid`` and its descendants use now."""
    found = [*descendants(pid)]
    return Usage(
        sum(len(_listed(Path(f"/proc/{each}/task"))) for each in found), sum(_held(each) for each in found)
    )


def descendants(pid: int) -> Iterator[int]:
    """``pid`` and the processes below it; one may end while it is looked at."""
    yield pid
    for thread in _listed(Path(f"/proc/{pid}/task")):
        for child in _read(thread / "children").split():
            yield from descendants(int(child))


def _held(pid: int) -> int:
    for name, wanted in (("smaps_rollup", _PROPORTIONAL), ("status", _WHOLE)):
        lines = [line.split() for line in _read(Path(f"/proc/{pid}/{name}")).splitlines()]
        found = [int(line[1]) << 10 for line in lines if line[0].rstrip(":") in wanted]
        if found:
            return sum(found)
    return 0


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended, or may not be looked at
        return ""
