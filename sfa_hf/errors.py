"""The one error a user's input can cause, and the end that a scheduler asks for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """Something the user gave is wrong: a config key, an option, a data file, a model.

    Its text reads ``KEY: what is wrong (what would be right)``; the scripts print it behind ``error: ``
    on one line and exit with code 2.

    Args:
        key: the dotted config key, argument or file that is wrong, as the user wrote it.
        problem: what is wrong, with the value given.
        right: what would be right.
    """

    def __init__(self, key: str, problem: str, right: str) -> None:
        self.key = key
        self.problem = problem
        self.right = right
        super().__init__(" ".join(f"{key}: {problem} ({right})".split()))


class Preempted(Exception):  # noqa: N818 - no error: what was asked for
    """The process was told to end (SIGTERM), and everything that a resume needs is on the disk."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what was probably meant: ``did you mean 'beta'? known: beta, p``."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known) if len(known) <= 12 else f"{len(known)} keys"
    return (f"did you mean '{close[0]}'? " if close else "") + f"known: {listing}"
