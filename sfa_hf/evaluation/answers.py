"""From a model's text to the answer in it, and when two answers are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable


def extract(text: str, pattern: str | None) -> str | None:
    """The answer inside ``text``.

    Args:
        text: a model's output, or a target.
        pattern: regular expression whose last match counts: its first group where it has one, else the whole
            match. None: the whole text is the answer.

    Returns:
        The answer, or None where nothing matches.
    """
    if pattern is None:
        return text
    matches = list(re.finditer(pattern, text))
    if not matches:
        return None
    return matches[-1].group(1 if matches[-1].re.groups else 0)


def normalised(text: str) -> str:
    """``text`` with every run of white space as one space and none at the ends."""
    return " ".join(text.split())


def cut_at(text: str, stops: Iterable[str]) -> str:
    """``text`` up to the first place where one of ``stops`` begins."""
    found = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(found)] if found else text
