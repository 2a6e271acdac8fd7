"""How much a program may use."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds on one program and its test.

    Attributes:
        cpu_seconds: processor time of each of its processes. By the clock it has twice as long, so that a
            busy machine fails no program that an idle one would pass.
        memory_mb: address space of each of its processes, and memory in use by all together, in MiB. Memory
            that belongs to no process (System V's, memfd's, shared and anonymous) it does not get at all.
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
        """Values of setrlimit by name.

        Outside a namespace the kernel counts a user's processes together, nobody's those of all programs that
        run beside each other: it is given room for them, and the count by program is kept from outside alone.
        Any other user has processes of its own, and no limit.
        """
        processes = self.processes if contained else self.processes * max(4, os.cpu_count() or 1)
        return {
            "CPU": math.ceil(self.cpu_seconds),
            "AS": self.memory_mb * _MIB,
            "FSIZE": self.disk_mb * _MIB // 2,
            "NOFILE": self.open_files,
            "CORE": 0,
            "NPROC": processes if contained or os.geteuid() == 0 else None,
        }
