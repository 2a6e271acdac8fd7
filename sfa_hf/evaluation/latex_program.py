"""Mathematical expressions by math-verify, in a process with limits: reading 10^{10^{9}} computes it."""

from __future__ import annotations

import re
from typing import Any

from math_verify import parse, verify

_DELIMITED = re.compile(r"\\boxed|\$|\\\(|\\\[|\\begin")


def answer(request: tuple[str, str, bool]) -> bool:
    r"""Whether two texts mean the same; of one text twice, whether it means anything.

    Args:
        request: the right text, the model's, and whether all of the model's is an expression. In prose
            math-verify looks for expressions: the last \boxed{}, $...$, numbers.
    """
    right, given, bare = request
    return bool(verify(_read(right, bare=True), _read(given, bare=bare), timeout_seconds=None))


def _read(text: str, *, bare: bool) -> list[Any]:
    wrapped = f"\\boxed{{{text}}}" if bare and not _DELIMITED.search(text) else text
    return list(parse(wrapped, parsing_timeout=None))
