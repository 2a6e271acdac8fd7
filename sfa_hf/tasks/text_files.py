"""Plain text as rows: whole lines packed into blocks that a model can read at once."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

#: Characters of a block. English runs at three to five a token: a block fits into 512 positions.
BLOCK = 1000


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
