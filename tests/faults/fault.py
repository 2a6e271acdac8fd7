"""What befalls a process of a run, and when: it is killed, told to end, or its disk is full."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What a process is doing when a file of this kind is opened for writing, made, renamed or removed, and about
# how often it is in a run of three tasks.
MOMENTS = {
    "anchor": ("/_sfa_anchor/", 5),
    "checkpoint": ("/checkpoint-", 60),
    "model": ("/.model.tmp", 12),
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


def _after(delay: float, strike: Callable[[], None]) -> None:
    if delay <= 0:
        strike()
        return
    timer = threading.Timer(delay, strike)
    timer.daemon = True
    timer.start()
