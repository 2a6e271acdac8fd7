"""The first process in a sandbox: starts the program in a second one, runs the test, writes the verdict.

The test runs here and the program there, so that a program cannot reach what decides: it never sees the
test, the verdict's channel or this interpreter's builtins; all it can do is answer the test's calls with
values, and a verdict of "passed" needs every assertion of the test to hold for them.
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

from sfa_hf.evaluation.sandbox.inside.enter import NOBODY
from sfa_hf.evaluation.sandbox.inside.keeper import keep
from sfa_hf.evaluation.sandbox.inside.remote import Connection
from sfa_hf.evaluation.sandbox.inside.walls import PR_SET_DUMPABLE, leave_keyrings, prctl, shut_in
from sfa_hf.evaluation.sandbox.inside.worker import serve

#: Where there is no box, root's judge becomes this user: the program, as nobody, cannot send it signals.
JUDGE = NOBODY - 1
#: Written before the program runs: whoever reads no verdict behind it knows that the program is to blame.
STARTED = b"started\n"
VERDICT_END = b"\n"
# what the kernel says to a program that wants more than its sandbox has
_FORBIDDEN = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}


def main() -> NoReturn:
    """Judge the one program that standard input describes (JSON); the verdict goes to standard output."""
    contained = os.getpid() == 1
    prctl(PR_SET_DUMPABLE, 0)  # or the program could write to this process's memory and files
    if not contained:
        keep()
    leave_keyrings()
    verdicts = os.dup(1)
    ours, theirs = socket.socketpair()
    output, printed = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run_worker(theirs, printed, contained)
    os.close(printed)
    theirs.close()
    job = json.load(sys.stdin)  # only now: the program's process has no copy of it
    sys.path += job["site"]
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)  # what a test prints goes nowhere
    shut_in(JUDGE, contained=contained)
    os.write(verdicts, STARTED)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # or a program could raise KeyboardInterrupt in the test
    signal.signal(signal.SIGALRM, lambda *_: _end(verdicts, "timeout", f"more than {job['seconds']:g} s"))
    signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    resource.setrlimit(resource.RLIMIT_AS, (job["limits"]["AS"], job["limits"]["AS"]))
    connection = Connection(ours, output, pid, job["most_output"], job["limits"]["CPU"])
    _end(verdicts, *_judged(connection, job))


def _run_worker(channel: socket.socket, output: int, contained: bool) -> NoReturn:
    try:
        os.setsid()
        serve(channel, output, lambda: shut_in(NOBODY, contained=contained))
    finally:
        os._exit(0)


def _judged(connection: Connection, job: dict[str, Any]) -> tuple[str, str]:
    try:
        names = connection.start(job["program"], job["limits"], job["site"])
        code = compile(job["test"], "<test>", "exec")
        exec(code, _test_names(names))  # noqa: S102 - the task's own test
    except BaseException as error:
        if connection.ended is None:
            return _outcome(error), f"{_name(error)}: {error}"
    if connection.ended is not None:  # even if the test caught it, as a bare `except:` does
        return connection.ended.outcome, connection.ended.detail
    return "passed", ""


def _test_names(names: dict[str, Any]) -> dict[str, Any]:
    """What a test finds: the program's names, but for those that mean something of their own to Python."""
    own = {
        name: value for name, value in names.items() if not (name.startswith("__") or hasattr(builtins, name))
    }
    return {**own, "__name__": "test", "__builtins__": builtins, "program": _Names(names)}


class _Names:
    """``program.f`` in a test: the program's f, whatever the test itself calls f."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise NameError(f"the program defines no {name!r}")
        return self._names[name]


def _name(error: BaseException) -> str:
    return getattr(error, "program_raised", {}).get("type", type(error).__name__)


def _outcome(error: BaseException) -> str:
    raised = getattr(error, "program_raised", None)
    if raised is None:
        return "out_of_memory" if isinstance(error, MemoryError) else "failed"
    if "MemoryError" in raised["bases"] or raised["errno"] == errno.ENOMEM:
        return "out_of_memory"
    if raised["type"] == "BlockingIOError" or "start new thread" in raised["message"]:
        return "too_many_processes"
    if raised["errno"] in (errno.ENOSPC, errno.EFBIG):
        return "too_much_output"
    if raised["errno"] in _FORBIDDEN or raised["type"] == "gaierror":
        return "forbidden"
    return "failed"


def _end(verdicts: int, outcome: str, detail: str) -> NoReturn:
    """Write the verdict and leave; as process 1 of its namespace, everything in it leaves too."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.write(verdicts, json.dumps({"outcome": outcome, "detail": detail[:500]}).encode() + VERDICT_END)
    os._exit(0)
