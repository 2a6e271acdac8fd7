"""The one error a user's input can cause, and the ends of a run that are nobody's bug."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager


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

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, str]]:
        """One process sends it to others."""
        return type(self), (self.key, self.problem, self.right)


class Preempted(Exception):  # noqa: N818 - no error: what was asked for
    """The process was told to end (SIGTERM), and everything that a resume needs is on the disk."""


class Diverged(Exception):  # noqa: N818 - the word for it
    """Weights in training have become NaN or infinite. Raised on all processes at the same step.

    Args:
        step: after which they were found so.
        problem: what was found.
        task: of a sequence, that was trained.
    """

    def __init__(self, step: int, problem: str, task: str | None = None) -> None:
        self.step = step
        self.problem = problem
        where = f"step {step}" if task is None else f"step {step} of task {task}"
        super().__init__(f"training diverged at {where}: {problem}")


def under(key: str) -> _Rekeyed:
    """A block whose ConfigErrors get a longer key: ``beta`` becomes ``method.beta`` under ``method``."""
    return _rekeyed(lambda inner: ".".join(part for part in (key, inner) if part))


def known_as(names: str | Mapping[str, str]) -> _Rekeyed:
    """A block whose ConfigErrors get the key that the user knows.

    Args:
        names: the key of all of them; or, for keys that have another name here, that name by theirs.
    """
    return _rekeyed(lambda inner: names if isinstance(names, str) else names.get(inner, inner))


@contextmanager
def _rekeyed(key: Callable[[str], str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(key(error.key), error.problem, error.right) from error


_Rekeyed = AbstractContextManager[None]
_NAMES_SHOWN = 5


def nearest(name: str, known: Iterable[str], rest: str | None = None) -> str:
    """Say what was probably meant, and all that there is: ``did you mean 'beta'? known: beta, p``.

    Args:
        name: what was given.
        known: what there is.
        rest: for hundreds of names, where all of them can be seen: the nearest five are named, and this.
    """
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=_NAMES_SHOWN, cutoff=0.5)
    meant = f"did you mean '{close[0]}'? " if close else ""
    if rest is None:
        return f"{meant}known: {', '.join(known)}"
    alike = close or difflib.get_close_matches(name, known, n=_NAMES_SHOWN, cutoff=0.0)
    return f"{meant}nearest: {', '.join(alike)}; all of them: {rest}"
