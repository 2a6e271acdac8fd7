"""Regular expressions that a user gives, with a limit of time: some never end on 60 letters."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import regex

from sfa_hf.errors import ConfigError

_SECONDS = 1.0
"""Processor time for one text; a pattern that is not in trouble needs microseconds."""


class Pattern:
    """A compiled expression.

    Args:
        pattern: in the syntax of Python's ``re``. It runs in the library ``regex``, which has a time limit.

    Raises:
        ValueError: it does not compile.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        try:
            re.compile(pattern)
            self._compiled = regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError) as err:
            raise ValueError(f"must be a regular expression: {err}") from err

    def found_in(self, text: str) -> bool:
        """Whether it matches anywhere; raises ConfigError without a key when that takes too long."""
        with self._in_time(text):
            return self._compiled.search(text, timeout=_SECONDS) is not None

    def last_in(self, text: str) -> str | None:
        """Its last match, of that the first group that took part; raises as :meth:`found_in`."""
        with self._in_time(text):
            found = deque(self._compiled.finditer(text, timeout=_SECONDS), maxlen=1)
            if not found:
                return None
            groups = found[0].groups() or (found[0].group(),)
            return next((group for group in groups if group is not None), None)

    def removed_from(self, text: str) -> str:
        """``text`` without its matches; raises as :meth:`found_in`."""
        with self._in_time(text):
            return str(self._compiled.sub("", text, timeout=_SECONDS))

    @contextmanager
    def _in_time(self, text: str) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, MemoryError) as err:
            much = "all memory" if isinstance(err, MemoryError) else f"more than {_SECONDS:g} s"
            problem = f"{self.pattern!r:.80} takes {much} on {text!r:.40}, {len(text)} characters"
            raise ConfigError("", problem, "a pattern without repeats inside repeats") from err


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Pattern:
    """A pattern, compiled once."""
    return Pattern(pattern)
