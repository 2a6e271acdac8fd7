"""Checks of the callback's arguments; each error names the argument, its value and what would be right."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any

from sfa_hf.errors import ConfigError, nearest


def check_beta(beta: Any) -> float:
    """Return beta, in [0, 1]."""
    if not _is_real(beta) or not 0 <= beta <= 1:
        raise ConfigError("beta", f"{beta!r} is not the weight of an average", "a number from 0 to 1")
    return float(beta)


def check_p(p: Any) -> float:
    """Return p, in (0, 1]."""
    if not _is_real(p) or not 0 < p <= 1:
        raise ConfigError("p", f"{p!r} is not a fraction of the training", "a number above 0, up to 1")
    return float(p)


def check_strength(argument: str, value: Any) -> float:
    """Return the strength of a penalty: finite, not negative."""
    if not _is_real(value) or not 0 <= value < math.inf:
        raise ConfigError(
            argument, f"{value!r} is not the strength of a penalty", "a finite number from 0 on"
        )
    return float(value)


def check_fraction(argument: str, value: Any) -> float:
    """Return a number in [0, 1]."""
    if not _is_real(value) or not 0 <= value <= 1:
        raise ConfigError(argument, f"{value!r} is not a fraction", "a number from 0 to 1")
    return float(value)


def check_merge_every(steps: Any) -> int:
    """Return a positive number of steps."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError("merge_every", f"{steps!r} is not a number of steps", "a whole number from 1 on")
    return steps


def check_power(power: Any) -> float:
    """Return q, in [0, 2]."""
    if not _is_real(power) or not 0 <= power <= 2:
        raise ConfigError(
            "power", f"{power!r} is not a power of F", "a number from 0 to 2; 0.5 and 1 are usual"
        )
    return float(power)


def check_seed(argument: str, seed: Any) -> int | None:
    """Return a whole number, or None."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ConfigError(argument, f"{seed!r} is not a seed", "a whole number, or None")
    return seed


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Return one of the choices."""
    choices = sorted(choices)
    if value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else f"known: {', '.join(choices)}"
        raise ConfigError(argument, f"unknown value {value!r}", hint)
    return value


def check_pattern(argument: str, pattern: Any) -> re.Pattern[str] | None:
    """Return the compiled regular expression, or None."""
    if pattern is None:
        return None
    if not isinstance(pattern, str):
        raise ConfigError(argument, f"{pattern!r} is not text", "a regular expression on parameter names")
    try:
        return re.compile(pattern)
    except re.error as error:
        problem = f"{pattern!r} is not a regular expression: {error}"
        raise ConfigError(
            argument, problem, "Python's regular expressions; '.' matches any character"
        ) from error


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
