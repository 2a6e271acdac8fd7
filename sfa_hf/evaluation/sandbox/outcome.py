"""What can become of a program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(str, Enum):
    """Only :attr:`PASSED` counts; the others say why a program did not pass."""

    PASSED = "passed"
    FAILED = "failed"  # the test or the program raised an exception
    TIMEOUT = "timeout"  # by processor time or by the clock
    OUT_OF_MEMORY = "out_of_memory"
    TOO_MUCH_OUTPUT = "too_much_output"  # printed, returned or written to files
    TOO_MANY_PROCESSES = "too_many_processes"  # threads among them
    FORBIDDEN = "forbidden"  # refused by the kernel: the network, a read-only place, another's process
    EXITED = "exited"  # left before the test had finished
    CRASHED = "crashed"  # killed by a signal


@dataclass(frozen=True)
class Verdict:
    """What became of one program.

    Attributes:
        outcome: its kind.
        detail: one line more: the exception, the signal, the limit.
        seconds: by the clock, the sandbox's own start included.
    """

    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED
