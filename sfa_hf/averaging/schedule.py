"""Which optimizer steps merge. Paper: after every pT of the T steps of a task, and at the end."""

from __future__ import annotations

import math


def interval(p: float, total: int) -> float:
    """K = max(1, p T): optimizer steps between merges, not rounded.

    Args:
        p: fraction of the task between merges, in (0, 1].
        total: T, optimizer steps of the task.
    """
    return max(1.0, p * total)


def is_merge_step(step: int, total: int, every: float) -> bool:
    """Whether to merge after optimizer step ``step`` (from 1): at K, 2K, ..., each rounded, and at T.

    Multiples are rounded, not K: with T = 250 and p = 1/4 a K of 62 would merge at 248 and again at 250.

    Args:
        step: steps taken so far.
        total: T.
        every: K, 1 at least.
    """
    return step > 0 and (step == total or _multiples(step, every) > _multiples(step - 1, every))


def merges_until(step: int, total: int, every: float) -> int:
    """How many merges a training has behind it after ``step`` of ``total`` steps."""
    extra = step > 0 and step == total and _multiples(step, every) == _multiples(step - 1, every)
    return _multiples(step, every) + extra


def _multiples(step: int, every: float) -> int:
    """How many of K, 2K, ..., each rounded (halves up), are at most ``step``."""
    return max(0, math.ceil((step + 0.5) / every) - 1)


def beta_of_each_step(beta: float, every: float) -> float:
    """beta_s = 1 - (1 - beta)^(1/K): K averages with beta_s shrink a distance as one with beta does.

    Args:
        beta: weight of the anchor in the one average, in [0, 1].
        every: K.
    """
    return 1.0 if beta == 1 else -math.expm1(math.log1p(-beta) / every)
