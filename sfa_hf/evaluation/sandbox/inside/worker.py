"""The process that runs the program and answers the judge's calls.

It holds nothing worth stealing: not the test, not the channel that the verdict is written to.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from sfa_hf.evaluation.sandbox.inside.codec import pack, unpack
from sfa_hf.evaluation.sandbox.inside.frames import Reader, TooLargeError, framed

CHANNEL = 3  # the file descriptor that calls come in on
MUTABLE = (list, dict, set, bytearray)


def serve(channel: socket.socket, output: int, shut_in: Callable[[], None]) -> None:
    """Run the program that the first message holds, then answer calls until the judge is gone.

    Args:
        channel: where the messages come from.
        output: what the program prints goes there.
        shut_in: called before the program runs.
    """
    stream = _only_descriptors(channel, output)
    reader = Reader()
    first = _receive(stream, reader)
    if first is None:
        return
    sys.path[:1] = []  # the folder of the sandbox's own code
    sys.path += first["site"]
    shut_in()
    _limit(first["limits"])
    program = _Program()
    stream.sendall(_reply(lambda: program.start(first["program"])))
    while (request := _receive(stream, reader)) is not None:
        stream.sendall(_reply(lambda: program.answer(request)))


def _only_descriptors(channel: socket.socket, output: int) -> socket.socket:
    """Null input, the judge's pipe as output, the channel; nothing else that was open stays so."""
    kept = os.dup(channel.fileno()), os.dup(output), os.open(os.devnull, os.O_RDWR)
    for source, place in zip(kept, (CHANNEL, 1, 0), strict=True):
        os.dup2(source, place)
    os.dup2(1, 2)
    os.closerange(CHANNEL + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    channel.detach()
    return socket.socket(fileno=CHANNEL)


def _limit(limits: dict[str, int | None]) -> None:
    """Hard limits, which a process without privileges cannot raise again."""
    # one second more until SIGKILL, for a program that ignores SIGXCPU
    cpu = limits.pop("CPU")
    if cpu is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for name, value in limits.items():
        if value is not None:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Program:
    """The program's module, and the objects of it that the judge holds handles to."""

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}

    def start(self, source: str) -> dict[str, Any]:
        """Run the program; the names it defines."""
        # a module of its own, not __main__: a program's `if __name__ == "__main__"` reads input, as a rule
        module = types.ModuleType("program")
        sys.modules["program"] = module  # where dataclasses and pickle look for it
        exec(compile(source, "<program>", "exec"), module.__dict__)  # noqa: S102 - what a sandbox is for
        names = [[name, value] for name, value in vars(module).items() if not name.startswith("__")]
        return {"names": [[name, self._pack(value)] for name, value in names]}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one thing with one object: call it, read an attribute, ..."""
        target = self._objects[request["handle"]]
        arguments = [unpack(item, self._resolve) for item in request["arguments"]]
        named = {name: unpack(item, self._resolve) for name, item in request["named"].items()}
        value = OPERATIONS[request["operation"]](target, *arguments, **named)
        changed = [self._pack(item) if isinstance(item, MUTABLE) else None for item in arguments]
        return {"value": self._pack(value), "arguments": changed}

    def _pack(self, value: Any) -> Any:
        return pack(value, self._refer)

    def _refer(self, value: Any) -> list[Any]:
        self._objects[id(value)] = value  # held, so that its id stays its own
        return ["handle", id(value), type(value).__name__]

    def _resolve(self, data: list[Any]) -> Any:
        return self._objects[data[1]]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *arguments, **named: target(*arguments, **named),
    "attribute": getattr,
    "item": lambda target, key: target[key],
    "items": list,
    "length": len,
    "truth": bool,
    "text": str,
}


def _reply(act: Callable[[], dict[str, Any]]) -> bytes:
    try:
        return framed(act())
    except BaseException as error:
        return framed({"raised": _described(error)})


def _described(error: BaseException) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": _text(error)[:500],
        "errno": error.errno if isinstance(error, OSError) else None,
        "too_large": isinstance(error, TooLargeError),
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return ""  # a program's own __str__ may raise what it likes


def _receive(stream: socket.socket, reader: Reader) -> Any | None:
    while (message := reader.take()) is None:
        data = stream.recv(1 << 16)
        if not data:
            return None
        reader.add(data)
    return message
