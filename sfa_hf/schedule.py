"""Which optimizer steps merge. Paper: after every pT of the T steps of a task, and at the end."""

from __future__ import annotations

import math


def interval(p: float, total: int) -> int:
    """K = max(1, round(p T)): optimizer steps between merges.

    Args:
        p: fraction of the task between merges, in (0, 1].
        total: T, optimizer steps of the task.
    """
    return max(1, round(p * total))


def is_merge_step(step: int, total: int, every: int) -> bool:
    """Whether to merge after optimizer step ``step`` (from 1): at K, 2K, ... and at T.

    Args:
        step: steps taken so far.
        total: T.
        every: K.
    """
    return step > 0 and (step % every == 0 or step == total)


def merges_until(step: int, total: int, every: int) -> int:
    """How many merges a training has behind it after ``step`` of ``total`` steps."""
    return step // every + (step == total and total % every != 0)


def beta_of_each_step(beta: float, every: int) -> float:
    """beta_s = 1 - (1 - beta)^(1/K): K averages with beta_s shrink a distance as one with beta does.

    Args:
        beta: weight of the anchor in the one average, in [0, 1].
        every: K.
    """
    return 1.0 if beta == 1 else -math.expm1(math.log1p(-beta) / every)
