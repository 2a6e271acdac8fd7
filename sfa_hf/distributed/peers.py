"""The processes of a launch watch each other: one that is lost ends the others, and how one ends, all end.

A star of TCP connections, beside the process group and whatever its backend: rank 0 holds one to each other
rank. Once a second an empty line goes each way, from a thread of its own, so a process that computes, or
waits in a collective, answers; one that was killed, stopped or cut off does not. See
docs/internals/process-end.md.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

import torch.distributed as dist

from sfa_hf.distributed.link import Link
from sfa_hf.distributed.meeting import connected, key, open_store, own_name
from sfa_hf.errors import ConfigError

EXIT_LOST_PROCESS = 69
"""EX_UNAVAILABLE of sysexits.h: another process of the launch is gone; the same command continues."""
TIMEOUT = "SFA_HF_PEER_TIMEOUT"
"""Environment variable: seconds without an answer after which a process is lost; 0 turns the watch off."""
START_TIMEOUT = "SFA_HF_START_TIMEOUT"
"""Environment variable: seconds that the processes of a launch wait for each other at the start."""

_DEFAULTS = {TIMEOUT: 120.0, START_TIMEOUT: 600.0}
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TICK = 1.0
# The main thread may end by itself, with its cleaning up, before the process is ended.
_GRACE = 5.0
_HELLO_SECONDS = 10.0
_GONE_ON = "the same command continues from the newest checkpoint"
_NOTHING = "nothing was changed"


def join() -> None:
    """Connect to the other processes of this launch; a collective call, before the process group exists.

    Without a launcher, and with the watch turned off, it does nothing. A process that does not come in time
    ends this one with :data:`EXIT_LOST_PROCESS` and one line.

    Raises:
        ConfigError: an environment variable that is no number.
    """
    global _joined  # noqa: PLW0603 - a process has one launch
    silence, start = _seconds(TIMEOUT), _seconds(START_TIMEOUT)
    launched = all(os.environ.get(name) for name in _LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1
    if launched and silence and _joined is None:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        _joined = (_Spoke if rank else _Hub)(rank, ranks, silence, start)
        _joined.join()


def at(place: str) -> None:
    """Note what this process is doing, for the line that tells of a lost one: ``step 3 of task law``."""
    global _place  # noqa: PLW0603 - as above
    _place = place


def launch() -> str:
    """What tells this launch from all others, the same in all its processes; empty where none was joined."""
    return "" if _joined is None else _joined.token


def leave(code: int, line: str | None) -> int | None:
    """End this process's part in the launch: all others end with the same code, and the line is said once.

    Args:
        code: to exit with; after 0 the others go on.
        line: to print.

    Returns:
        The code that the launch ends with, which may have been decided by another process; None where this
        process has joined no others.
    """
    return None if _joined is None else _joined.leave(code, line)


def lost(error: BaseException) -> str | None:
    """The line for an error that a collective raised because another process is gone; None for any other."""
    if not is_of_collective(error):
        return None
    if _joined is not None:
        _joined.decided.wait(_GRACE)
    text = " ".join(str(error).split())
    return f"error: lost a process: {text[:200]}{_where()}; {_GONE_ON}"


def is_of_collective(error: BaseException) -> bool:
    """Whether torch raised it because it could not reach another process, or not in time."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


class _Peers:
    """This process's connections, and the thread that attends to them."""

    def __init__(self, rank: int, ranks: int, silence: float, start: float) -> None:
        self._rank, self._ranks = rank, ranks
        self._silence, self._start = silence, start
        self._links: dict[int, Link] = {}
        self._lock = threading.RLock()
        self.token = ""
        self._code = 0
        self._said = False
        self._finished = False
        self.decided = threading.Event()

    def join(self) -> None:
        """Connect; if that takes too long, or another process ends meanwhile, end this process."""
        timer = threading.Timer(self._start, self._miss)
        timer.daemon = True
        timer.start()
        try:
            self._connect(timer)
        except TimeoutError:
            self._miss()
        except (dist.DistError, OSError) as error:
            self._decide(EXIT_LOST_PROCESS, f"error: lost a process at the start: {error}; {_NOTHING}")
            _end_now(self._code)
        threading.Thread(target=self._attend, daemon=True, name="sfa_hf_peers").start()

    def leave(self, code: int, line: str | None) -> int:
        """See the module's function."""
        raise NotImplementedError

    def close(self) -> None:
        """Close this process's copies of the connections."""
        for link in self._links.values():
            link.close()

    def _connect(self, timer: threading.Timer) -> None:
        """Connect to all that this rank is connected to, and cancel the timer."""
        raise NotImplementedError

    def _take(self, link: Link, message: dict[str, Any]) -> None:
        """Act on how another process ends."""
        raise NotImplementedError

    def _decide(self, code: int, line: str | None) -> None:
        """Settle how the launch ends, if it is not settled; say the line, if none was said."""
        with self._lock:
            self._code = self._code or code
            if line and not self._said and self._speaks():
                self._said = True
                print(" ".join(line.split()), file=sys.stderr, flush=True)  # noqa: T201

    def _speaks(self) -> bool:
        return True

    def _absent(self) -> str:
        raise NotImplementedError

    def _miss(self) -> NoReturn:
        problem = f"{self._absent()} did not come within {self._start:g} s ({START_TIMEOUT})"
        self._decide(EXIT_LOST_PROCESS, f"error: lost a process at the start: {problem}; {_NOTHING}")
        _end_now(self._code)

    def _attend(self) -> None:
        """Beat and listen until it is settled how the launch ends; then see that this process ends."""
        with selectors.DefaultSelector() as selector:
            for link in self._links.values():
                selector.register(link, selectors.EVENT_READ, link)
            tick = time.monotonic() + _TICK
            while self._links and not self._code and not self._finished:
                for found, _ in selector.select(max(0.0, tick - time.monotonic())):
                    self._listen(found.data)
                    if found.data.rank not in self._links:
                        selector.unregister(found.data)
                if time.monotonic() >= tick:
                    # Seconds are counted, not read from a clock: a whole job may be stopped and continued.
                    tick = time.monotonic() + _TICK
                    self._beat()
        if self._code:
            self.decided.set()
            time.sleep(_GRACE)
            _end_now(self._code)

    def _beat(self) -> None:
        for link in self._links.values():
            link.send()
            link.silent += _TICK
            if link.silent > self._silence:
                self._lose(link, f"did not answer within {self._silence:g} s ({TIMEOUT})")

    def _listen(self, link: Link) -> None:
        for message in link.receive():
            if message["code"]:
                self._take(link, message)
            else:  # it has finished, as this process is about to
                self._links.pop(link.rank)
        if link.closed and link.rank in self._links:
            self._lose(link, "ended without a word: killed, or out of memory?")
            self._links.pop(link.rank)

    def _lose(self, link: Link, what: str) -> None:
        if self._finished:
            return
        problem = f"rank {link.rank} ({link.name}){_where()} {what}"
        self._decide(EXIT_LOST_PROCESS, f"error: lost a process: {problem}; {_GONE_ON}")


class _Hub(_Peers):
    """Rank 0: knows of all, and speaks for all."""

    def _connect(self, timer: threading.Timer) -> None:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self.token = secrets.token_hex(8)
        with socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=self._ranks) as server:
            self._store = open_store(self._rank, self._start)
            self._store.set(key(), json.dumps([server.getsockname()[1], self.token, own_name()]))
            while len(self._links) < self._ranks - 1:
                link = Link(server.accept()[0])
                with suppress(OSError):
                    hello = link.wait(_HELLO_SECONDS)
                    if hello.get("token") == self.token:
                        link.rank, link.name = hello["rank"], hello["name"]
                        self._links[link.rank] = link
        timer.cancel()
        for link in self._links.values():
            link.send({"go": True})

    def leave(self, code: int, line: str | None) -> int:
        if code:
            self._decide(code, line)
        elif not self._code:
            self._finished = True
            self._tell(0)
        return self._code

    def _absent(self) -> str:
        absent = [str(rank) for rank in range(1, self._ranks) if rank not in self._links]
        return f"rank{'s' * (len(absent) > 1)} {', '.join(absent[:5])}{' ...' * (len(absent) > 5)}"

    def _take(self, link: Link, message: dict[str, Any]) -> None:
        del link
        self._decide(message["code"], message["line"])

    def _decide(self, code: int, line: str | None) -> None:
        with self._lock:
            settled = self._code
            super()._decide(code, line)
            if self._code != settled:
                self._tell(self._code)

    def _tell(self, code: int) -> None:
        for link in list(self._links.values()):
            link.send({"code": code, "said": self._said})


class _Spoke(_Peers):
    """Any other rank: tells rank 0 how it ends, and hears from it how the launch does."""

    _has_own_line = False

    def _connect(self, timer: threading.Timer) -> None:
        self._store = open_store(self._rank, self._start)
        port, self.token, name = json.loads(self._store.get(key()))
        link = Link(connected(os.environ["MASTER_ADDR"], port, self._start))
        link.rank, link.name = 0, name
        link.send({"token": self.token, "rank": self._rank, "name": own_name()})
        timer.cancel()
        # Rank 0 began before: where it waits in vain for another rank, it says so before this is over.
        answer = link.wait(self._start + _GRACE)
        if not answer:
            raise ConnectionError(f"rank 0 ({name}) ended without a word")
        if "code" in answer:
            _end_now(answer["code"])
        self._links[0] = link

    def leave(self, code: int, line: str | None) -> int:
        self._finished = not code
        self._has_own_line = code != EXIT_LOST_PROCESS
        if link := self._links.get(0):
            link.send({"code": code, "line": line})
            if code:
                # A launcher ends all others once this process has ended: first rank 0 has said the line.
                self.decided.wait(_GRACE)
        self._decide(code, line)
        return self._code

    def _absent(self) -> str:
        return "rank 0"

    def _speaks(self) -> bool:
        """Whether it says what rank 0 no longer can: one process of each machine does, and rank 1."""
        return self._has_own_line or self._rank == 1 or os.environ.get("LOCAL_RANK", "0") == "0"

    def _take(self, link: Link, message: dict[str, Any]) -> None:
        del link
        self._said = self._said or message["said"]
        self._decide(message["code"], None)


def _where() -> str:
    return f" at {_place}" if _place else ""


def _seconds(variable: str) -> float:
    text = os.environ.get(variable, "")
    with suppress(ValueError):
        seconds = float(text) if text else _DEFAULTS[variable]
        if 0 <= seconds < threading.TIMEOUT_MAX:
            return seconds
    raise ConfigError(variable, f"is {text!r}", "a number of seconds")


def _end_now(code: int) -> NoReturn:
    """End as if killed, but for the code: the main thread may be in a collective that never returns."""
    sys.stderr.flush()
    os._exit(code)


def _forget() -> None:
    """A child that is forked is none of the launch's processes, and its copies would hide this one's end."""
    global _joined  # noqa: PLW0603 - as above
    if _joined is not None:
        _joined.close()
    _joined = None


_joined: _Hub | _Spoke | None = None
_place = ""
os.register_at_fork(after_in_child=_forget)
