"""The judge's view of the program: calls go over the channel, plain values come back."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from sfa_hf.evaluation.sandbox.inside.codec import pack, unpack
from sfa_hf.evaluation.sandbox.inside.endings import Ended, departure, ended, raise_in_test
from sfa_hf.evaluation.sandbox.inside.frames import Reader, TooLargeError, framed

_TICK_SECONDS = 0.05


class Remote:
    """An object that lives in the program's process.

    Equal to itself alone, whatever its class says: a test that compares it with a value fails.
    """

    def __init__(self, connection: Connection, handle: int, kind: str) -> None:
        self._connection = connection
        self._handle = handle
        self._kind = kind

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._do("call", *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._do("attribute", name)

    def __getitem__(self, key: Any) -> Any:
        return self._do("item", key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._do("items"))

    def __len__(self) -> int:
        return self._do("length")

    def __bool__(self) -> bool:
        return self._do("truth")

    def __str__(self) -> str:
        return self._do("text")

    def __repr__(self) -> str:
        return f"<{self._kind} of the program>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._handle == self._handle

    def __hash__(self) -> int:
        return hash(self._handle)

    def _do(self, operation: str, *arguments: Any, **named: Any) -> Any:
        return self._connection.ask(self._handle, operation, arguments, named)


class Connection:
    """One program's process: its channel and what it prints.

    Args:
        channel: the judge's end.
        output: read end of the pipe that the program prints to.
        pid: the process.
        most_output: bytes that it may print.
        cpu_seconds: processor time that it has.

    Attributes:
        ended: why the program will answer no more; None while it may.
    """

    def __init__(
        self, channel: socket.socket, output: int, pid: int, most_output: int, cpu_seconds: int
    ) -> None:
        self._channel, self._output, self._pid = channel, output, pid
        self._most_output, self._cpu_seconds = most_output, cpu_seconds
        self._reader = Reader()
        self._printed = 0
        self._open = {channel.fileno(), output}
        self.ended: Ended | None = None

    def start(self, program: str, limits: dict[str, int | None], site: list[str]) -> dict[str, Any]:
        """Run the program; the names that it defines."""
        reply = self._exchange({"program": program, "limits": limits, "site": site})
        return {name: unpack(value, self._resolve) for name, value in reply["names"]}

    def ask(self, handle: int, operation: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        reply = self._exchange(
            {
                "handle": handle,
                "operation": operation,
                "arguments": [pack(each, _refer) for each in arguments],
                "named": {name: pack(each, _refer) for name, each in named.items()},
            }
        )
        for mine, changed in zip(arguments, reply["arguments"], strict=True):
            if changed is not None:
                _put_into(mine, unpack(changed, self._resolve))
        return unpack(reply["value"], self._resolve)

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.ended is not None:
            raise self.ended
        try:
            reply = self._answer_to(request)
            if "raised" in reply:
                raise_in_test(reply["raised"])
        except Ended as ended:
            self.ended = ended
            raise
        return reply

    def _answer_to(self, request: dict[str, Any]) -> dict[str, Any]:
        message = memoryview(framed(request))
        while message:
            _, writable, _ = self._wait([self._channel])
            if writable:
                message = message[self._sent(message) :]
        while (reply := self._message()) is None:
            self._wait([])
        return reply

    def _sent(self, message: memoryview) -> int:
        try:
            return self._channel.send(message, socket.MSG_DONTWAIT)
        except (BrokenPipeError, ConnectionResetError):
            self._gone()

    def _wait(self, writing: list[socket.socket]) -> tuple[list[int], list[socket.socket], list[Any]]:
        """Take in what has come; notice that the program has died or prints too much."""
        ready = select.select(list(self._open), writing, [], _TICK_SECONDS)
        if self._output in ready[0]:
            self._take_output()
        if self._channel.fileno() in ready[0]:
            self._take_message()
        elif not ready[0] and (end := ended(self._pid)) is not None:
            raise departure(*end, self._cpu_seconds)
        return ready

    def _take_output(self) -> None:
        data = os.read(self._output, 1 << 16)
        if not data:
            self._open.discard(self._output)
        self._printed += len(data)
        if self._printed > self._most_output:
            raise Ended("too_much_output", f"more than {self._most_output} bytes printed")

    def _take_message(self) -> None:
        try:
            data = self._channel.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self._gone()
        self._reader.add(data)

    def _message(self) -> Any | None:
        """The program's reply, or None while it is not whole; it may write to the channel what it likes."""
        try:
            return self._reader.take()
        except TooLargeError as error:
            raise Ended("too_much_output", str(error)) from None
        except ValueError:
            raise Ended("failed", "wrote to the sandbox's channel") from None

    def _gone(self) -> NoReturn:
        """The channel is closed: see how the process ends, which is a moment away or never comes."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if (end := ended(self._pid)) is not None:
                raise departure(*end, self._cpu_seconds)
            time.sleep(0.01)
        raise Ended("exited", "closed its channel")

    def _resolve(self, data: list[Any]) -> Remote:
        _, handle, kind = data
        return Remote(self, handle, kind)


def _refer(value: Any) -> list[Any]:
    if isinstance(value, Remote):
        return ["handle", value._handle]
    raise TypeError(f"a test can pass plain data to a program, not a {type(value).__name__}")


def _put_into(mine: Any, changed: Any) -> None:
    """Make the test's own list, dict, ... equal to what the program has made of its copy."""
    if isinstance(mine, (list, bytearray)):
        mine[:] = changed
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(changed)
