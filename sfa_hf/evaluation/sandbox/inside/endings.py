"""How a program's process ends, and what its exceptions become in the test."""

from __future__ import annotations

import builtins
import os
import signal
from typing import Any, NoReturn


class Ended(BaseException):
    """The program did not come back: it died, left, printed too much. Not for a test's ``except`` clause.

    Args:
        outcome: what became of it; one of the outcomes' names.
        detail: more about it.
    """

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail


def ended(pid: int) -> tuple[int, float] | None:
    """Wait status and processor seconds of a process that has ended; None while it runs."""
    found, status, usage = os.wait4(pid, os.WNOHANG)
    return (status, usage.ru_utime + usage.ru_stime) if found else None


def departure(status: int, seconds: float, limit: int) -> Ended:
    if not os.WIFSIGNALED(status):
        return Ended(
            "exited", f"exit status {os.waitstatus_to_exitcode(status)} before the test had finished"
        )
    number = os.WTERMSIG(status)
    # the kernel kills a second after SIGXCPU; its clock and the accounting differ by a tick
    if number == signal.SIGXCPU or (number == signal.SIGKILL and seconds > limit):
        return Ended("timeout", f"more than {limit} s of processor time")
    return Ended("crashed", signal.Signals(number).name)


def raise_in_test(raised: dict[str, Any]) -> NoReturn:
    """Raise in the test what the program raised, as the nearest built-in exception."""
    if raised["too_large"]:
        raise Ended("too_much_output", raised["message"])
    if "Exception" not in raised["bases"]:  # SystemExit, KeyboardInterrupt, a BaseException of its own
        outcome = "exited" if raised["type"] == "SystemExit" else "failed"
        raise Ended(outcome, f"{raised['type']}: {raised['message']}")
    known = (getattr(builtins, name, None) for name in raised["bases"])
    kind = next(each for each in known if isinstance(each, type) and issubclass(each, Exception))
    error = _made(kind, raised["message"])
    error.program_raised = raised  # type: ignore[attr-defined]  # read by the judge
    raise error


def _made(kind: type[Exception], message: str) -> Exception:
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError and its like want five arguments
        return Exception(message)
