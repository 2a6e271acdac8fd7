"""How much a program may use."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds on one program and its test.

    Attributes:
        cpu_seconds: processor time of each of its processes. By the clock it has twice as long, so that a
            busy machine fails no program that an idle one would pass.
        memory_mb: address space of each of its processes, and resident memory of all together, in MiB.
        processes: processes and threads at a time.
        output_mb: what it may print, in MiB.
        disk_mb: files in its temporary folder, which are held in memory, in MiB; half of it for one file.
        open_files: file descriptors of each process.
    """

    cpu_seconds: float = 5.0
    memory_mb: int = 1024
    processes: int = 32
    output_mb: int = 1
    disk_mb: int = 32
    open_files: int = 64

    @property
    def clock_seconds(self) -> float:
        return 2 * self.cpu_seconds

    def resources(self, *, contained: bool) -> dict[str, int | None]:
        """Values of setrlimit by name; outside a namespace a user's processes are counted together."""
        return {
            "CPU": math.ceil(self.cpu_seconds),
            "AS": self.memory_mb * _MIB,
            "FSIZE": self.disk_mb * _MIB // 2,
            "NOFILE": self.open_files,
            "CORE": 0,
            "NPROC": self.processes if contained else None,
        }
