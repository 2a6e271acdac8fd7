"""Text of files: lines with a bound, blocks that a model can read at once, characters that are none."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

#: Characters of a block. English runs at three to five a token: a block fits into 512 positions.
BLOCK = 1000
_LONGEST_LINE = 2**30
"""Characters; a .json file may be one line."""
_MOST_UNPACKED = 2**22
_MOST_RATIO = 100
"""Text packs to a third or a tenth; gzip cannot do more than 1 in 1,032."""


def bounded_lines(file: IO[str], stored: int) -> Iterator[str]:
    """The lines of a text file, as they stand.

    Args:
        file: open for reading.
        stored: bytes that it takes on the disk.

    Raises:
        ValueError: a line has no end in sight, or packed text is far larger than what it is packed in.
    """
    seen, number = 0, 0
    most = max(_MOST_UNPACKED, _MOST_RATIO * stored)
    while line := file.readline(min(_LONGEST_LINE, most) + 1):
        number += 1
        seen += len(line)
        if seen > most:
            raise ValueError(f"unpacks to more than {_MOST_RATIO} times its {stored} bytes")
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"line {number} has more than {_LONGEST_LINE} characters")
        yield line


def blocks(lines: Iterable[str], size: int = BLOCK) -> Iterator[str]:
    """Consecutive lines, joined as they stood, in blocks of at most ``size`` characters.

    Empty lines are left out; a line longer than a block is split at its spaces.
    """
    held: list[str] = []
    for piece in _pieces(lines, size):
        if held and sum(map(len, held)) + len(held) + len(piece) > size:
            yield "\n".join(held)
            held = []
        held.append(piece)
    if held:
        yield "\n".join(held)


def _pieces(lines: Iterable[str], size: int) -> Iterator[str]:
    for line in lines:
        text = line.strip()
        yield from textwrap.wrap(text, size) if len(text) > size else filter(None, [text])


def bad_character(value: Any) -> str | None:
    """What in a value, or inside it, a file or a tokenizer could not take as text; None: nothing."""
    if isinstance(value, str):
        return _bad_in_text(value)
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return next(filter(None, map(bad_character, value)), None)
    return None


def _bad_in_text(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as err:  # JSON writes each half of a character beyond 16 bits by itself
        return f"half a character, {err.object[err.start]!a}"
    return None
