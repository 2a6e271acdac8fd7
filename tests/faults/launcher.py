"""Launches a run on one or several processes, and kills one, or fills its disk, at a chosen moment.

The processes are forked from one that has imported everything: a launch then takes a second instead of ten.
Each is a real process with the launcher's environment; SIGKILL leaves it no chance to tidy up.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a process is doing when a file of this kind is opened for writing, made, renamed or removed, and about
# how often it is in a run of three tasks.
MOMENTS = {
    "anchor": ("/sfa_anchor/", 5),
    "checkpoint": ("/checkpoint-", 60),
    "model": ("/model.writing", 12),
    "state": ("state.", 40),
    "records": ("/records/", 12),
    "results": ("results.json", 5),
    "report": ("report.html", 5),
    "config": ("config.yaml", 2),
}
_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
_WRITING = os.O_WRONLY | os.O_RDWR
_LONGEST_DELAY = 0.2
_ROOM = 64


@dataclass(frozen=True)
class Fault:
    """What befalls a process, and when.

    Attributes:
        text: part of a file's path; None for a time after the start.
        count: at so many-th event of such a file; seconds after the start for None.
        delay: seconds after that.
        rank: which process. The others are killed once it is gone, as a launcher does.
        full: the disk is full from then on (no file grows beyond 64 bytes); else a signal is sent.
        number: the signal's; SIGKILL unless told.
    """

    text: str | None
    count: float = 1
    delay: float = 0.0
    rank: int = 0
    full: bool = False
    number: int = signal.SIGKILL

    def arm(self) -> None:
        """Wait for the moment in this process."""
        if self.text is None:
            _after(self.count + self.delay, self._strike)
            return
        seen = 0

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in _EVENTS and self._is_it(event, arguments):
                seen += 1
                if seen == self.count:
                    _after(self.delay, self._strike)

        sys.addaudithook(hear)

    def _is_it(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return False
        return any(str(self.text) in str(argument) for argument in arguments[:2])

    def _strike(self) -> None:
        if self.full:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM, hard))
        else:
            os.kill(os.getpid(), self.number)


def drawn_kill(chance: random.Random, ranks: int, seconds: float) -> tuple[str, Fault]:
    """Draw a moment and a kill at it; ``seconds`` is how long a whole run takes."""
    moment = chance.choice(["any", "any", "checkpoint", *MOMENTS])
    delay = chance.choice([0.0, chance.uniform(0, _LONGEST_DELAY)])
    if moment == "any":
        return moment, Fault(None, chance.uniform(0.1, seconds), delay, chance.randrange(ranks))
    text, most = MOMENTS[moment]
    # Every process makes anchors and checkpoints; the rest is the first one's.
    rank = chance.randrange(ranks) if moment in {"anchor", "checkpoint"} else 0
    return moment, Fault(text, chance.randint(1, most), delay, rank)


def launch(run: Callable[[], None], ranks: int, log: Path, fault: Fault | None, seconds: float) -> list[int]:
    """Fork ``ranks`` processes that call ``run``, and wait for them.

    Args:
        run: ends by SystemExit.
        ranks: how many.
        log: what they print is added to it.
        fault: what befalls one of them. If it is killed, so are the others; else they end by themselves.
        seconds: they are taken for hung after so long.

    Returns:
        Exit codes by rank; minus the signal's number for one that was killed.
    """
    port = _free_port()
    # Through a pipe: a full disk must not swallow what a process says of it.
    with log.open("ab") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as cat:
        assert cat.stdin is not None
        pids = [
            _fork(
                run,
                _environment(rank, ranks, port),
                cat.stdin.fileno(),
                fault if fault and fault.rank == rank else None,
            )
            for rank in range(ranks)
        ]
        codes = _wait(pids, time.monotonic() + seconds)
    assert codes is not None, f"a process hung:\n{log.read_text(errors='replace')[-12000:]}"
    return codes


def _wait(pids: list[int], deadline: float) -> list[int] | None:
    """Exit codes; None if a process hung."""
    codes: dict[int, int] = {}
    late = False
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if not late and time.monotonic() > deadline:
            late = True
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGABRT)  # faulthandler tells where it hangs
        if -signal.SIGKILL in codes.values():
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return None if late else [codes[pid] for pid in pids]


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


def _fork(run: Callable[[], None], environment: dict[str, str], output: int, fault: Fault | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        faulthandler.enable()
        os.environ.update(environment)
        if fault is not None:
            fault.arm()
        run()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
    os._exit(99)


def _after(delay: float, strike: Callable[[], None]) -> None:
    if delay <= 0:
        strike()
        return
    timer = threading.Timer(delay, strike)
    timer.daemon = True
    timer.start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
