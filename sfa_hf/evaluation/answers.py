"""From a model's text to the answer in it, and when two answers are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sfa_hf.config.patterns import compiled


def extract(text: str, pattern: str | Sequence[str] | None) -> str | None:
    """The answer inside ``text``.

    Args:
        text: a model's output, or a target.
        pattern: regular expression whose last match counts: the first of its groups that took part, else the
            whole match. Of several, the first that finds something. None: the whole text is the answer.

    Returns:
        The answer, or None where nothing matches.

    Raises:
        ConfigError: without a key: the pattern takes too long.
    """
    if pattern is None:
        return text
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return next((found for each in patterns if (found := compiled(each).last_in(text)) is not None), None)


def normalised(text: str) -> str:
    """``text`` with every run of white space as one space and none at the ends."""
    return " ".join(text.split())


def cut_at(text: str, stops: Iterable[str]) -> str:
    """``text`` up to the first place where one of ``stops`` begins."""
    found = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(found)] if found else text
