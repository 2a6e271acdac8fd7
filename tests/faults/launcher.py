"""Launches a run on one or several processes and kills it at a chosen moment, without a word of warning.

The processes are forked from one that has imported everything: a launch then takes a second instead of ten.
Each is a real process with the launcher's environment; SIGKILL leaves it no chance to tidy up.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a process is doing when a file of this kind is opened for writing, made or renamed.
MOMENTS = {
    "anchor": "/sfa_anchor/",
    "checkpoint": "/checkpoint-",
    "model": "/model.writing",
    "state": "state.",
    "records": "/records/",
    "results": "results.json",
    "report": "report.html",
    "config": "config.yaml",
}
_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
_WRITING = os.O_WRONLY | os.O_RDWR
_LONGEST_DELAY = 0.2


@dataclass(frozen=True)
class Kill:
    """When a process dies.

    Attributes:
        moment: key of :data:`MOMENTS`, or "any" for a time after the start.
        count: at so many-th event of the moment; seconds after the start for "any".
        delay: seconds after that.
        rank: which process; the others are killed once it is gone, as a launcher does.
    """

    moment: str
    count: float
    delay: float
    rank: int

    @classmethod
    def drawn(cls, chance: random.Random, ranks: int, seconds: float) -> Kill:
        """Draw one; ``seconds`` is how long a whole run takes."""
        moment = chance.choice(["any", "any", *MOMENTS])
        count = chance.uniform(0.1, seconds) if moment == "any" else chance.randint(1, 12)
        delay = chance.choice([0.0, chance.uniform(0, _LONGEST_DELAY)])
        return cls(moment, count, delay, chance.randrange(ranks))

    def arm(self) -> None:
        """Wait for the moment in this process."""
        if self.moment == "any":
            _die_after(self.count + self.delay)
            return
        seen = 0

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in _EVENTS and self._is_it(event, arguments):
                seen += 1
                if seen == self.count:
                    _die_after(self.delay)

        sys.addaudithook(hear)

    def _is_it(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return False
        return any(MOMENTS[self.moment] in str(argument) for argument in arguments[:2])


def launch(run: Callable[[], None], ranks: int, log: Path, kill: Kill | None, seconds: float) -> list[int]:
    """Fork ``ranks`` processes that call ``run``, and wait for them.

    Returns:
        Exit codes by rank; minus the signal's number for one that was killed.
    """
    port = _free_port()
    pids = [
        _fork(run, _environment(rank, ranks, port), log, kill if kill and kill.rank == rank else None)
        for rank in range(ranks)
    ]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(codes) < ranks:
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > deadline:
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    if time.monotonic() > deadline:
        raise AssertionError(f"still running after {seconds} s:\n{log.read_text(errors='replace')[-4000:]}")
    return [codes[pid] for pid in pids]


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    if ranks == 1:
        return {}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _fork(run: Callable[[], None], environment: dict[str, str], log: Path, kill: Kill | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        if kill is not None:
            kill.arm()
        run()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(99)


def _die_after(delay: float) -> None:
    if delay <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
