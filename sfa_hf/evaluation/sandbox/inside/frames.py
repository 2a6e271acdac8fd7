"""Messages on a byte stream: a length, then that many bytes of JSON."""

from __future__ import annotations

import json
import struct
from typing import Any

#: Most bytes of one message: what a program returns is held in memory by the judge.
MOST_BYTES = 32 << 20
_LENGTH = struct.Struct("!I")


class TooLargeError(Exception):
    """A message has more than :data:`MOST_BYTES`."""


def framed(message: Any) -> bytes:
    """The bytes of one message.

    Raises:
        TooLargeError: it is too long to be sent.
    """
    body = json.dumps(message).encode()
    if len(body) > MOST_BYTES:
        raise TooLargeError(f"{len(body)} bytes in one value")
    return _LENGTH.pack(len(body)) + body


class Reader:
    """Collects bytes until a message is whole."""

    def __init__(self) -> None:
        self._held = bytearray()

    def add(self, data: bytes) -> None:
        self._held += data

    def take(self) -> Any | None:
        """The next message, or None while it is not whole. A message is never null itself."""
        if len(self._held) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._held)
        if length > MOST_BYTES:
            raise TooLargeError(f"{length} bytes in one value")
        end = _LENGTH.size + length
        if len(self._held) < end:
            return None
        message = json.loads(self._held[_LENGTH.size : end])
        del self._held[:end]
        return message
