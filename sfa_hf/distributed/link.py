"""One TCP connection that carries lines: an empty one is a sign of life, any other a message in JSON."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

_MOST_BYTES = 1 << 16


class Link:
    """The connection to another process, and who that is.

    Attributes:
        rank: of the other process; -1 before it is known.
        name: "process PID on HOST".
        silent: seconds since it was last heard.
        closed: whether the other side has closed it.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._unread = b""
        self.rank, self.name, self.silent, self.closed = -1, "", 0.0, False

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: dict[str, Any] | None = None) -> None:
        """Send a message, or a sign of life; nothing where the other side is gone."""
        with suppress(OSError):
            self._socket.sendall((json.dumps(message) if message else "").encode() + b"\n")

    def wait(self, seconds: float) -> dict[str, Any]:
        """The first message; empty where the connection closed, or what came is none; then never wait again.

        Raises:
            TimeoutError: there was none for so long.
        """
        self._socket.settimeout(seconds)
        messages: list[dict[str, Any]] = []
        while not messages and not self.closed:
            messages = self._taken(self._socket.recv(_MOST_BYTES))
        self._socket.setblocking(False)
        return messages[0] if messages else {}

    def receive(self) -> list[dict[str, Any]]:
        """All messages that have come; waits for none."""
        try:
            return self._taken(self._socket.recv(_MOST_BYTES))
        except BlockingIOError:
            return []
        except OSError:  # reset by the other side's end
            return self._taken(b"")

    def _taken(self, data: bytes) -> list[dict[str, Any]]:
        self.closed = not data
        self.silent = 0.0
        *lines, self._unread = (self._unread + data).split(b"\n")
        messages = []
        for line in filter(None, lines):
            with suppress(ValueError):
                messages.append(json.loads(line))
        return messages
