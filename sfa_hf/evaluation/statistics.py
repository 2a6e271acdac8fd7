"""Standard errors: what a score would vary by if other rows of the same kind had been drawn.

The rows are the sample; the model and its greedy answers are fixed. A single row says nothing about that
variation: its standard error is given as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem

RESAMPLES = 1000  # bootstrap resamples: the standard error is itself known to about 1 / sqrt(2 * 1000) = 2 %
BOOTSTRAP_SEED = 0


def mean_stderr(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) over sqrt(n); for 0/1 scores sqrt(p (1 - p) / (n - 1))."""
    return float(sem(np.asarray(values, dtype=np.float64))) if len(values) > 1 else 0.0


def ratio_stderr(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Standard error of sum(numerators) / sum(denominators) over rows, by the delta method.

    A task's negative log-likelihood a token is such a ratio: tokens of one row are not independent draws,
    rows are. With r the ratio: sqrt(n / (n - 1) * sum_i (x_i - r y_i)^2) / sum_i y_i.
    """
    count = len(numerators)
    if count < 2:
        return 0.0
    x, y = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    residuals = x - (x.sum() / y.sum()) * y
    return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / float(y.sum())


@dataclass(frozen=True)
class Confusion:
    """Rows counted by what they are and what they were taken for."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @classmethod
    def count(cls, predicted: Sequence[bool], actual: Sequence[bool]) -> Confusion:
        pairs = list(zip(predicted, actual, strict=True))
        cells = ((True, True), (True, False), (False, True), (False, False))
        return cls(*(pairs.count(cell) for cell in cells))

    @property
    def precision(self) -> float:
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 where there is no positive at all."""
        return _share(
            2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative
        )

    def f1_stderr(self) -> float:
        """Bootstrap over rows with a fixed seed.

        F1 depends on the four counts alone, and n rows drawn with replacement have multinomial counts, so the
        counts are drawn directly.
        """
        counts = np.array(
            [self.true_positive, self.false_positive, self.false_negative, self.true_negative], dtype=np.int64
        )
        total = int(counts.sum())
        if total < 2:
            return 0.0
        draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(total, counts / total, size=RESAMPLES)
        doubled = 2 * draws[:, 0]
        scores = doubled / np.maximum(doubled + draws[:, 1] + draws[:, 2], 1)
        return float(np.std(scores, ddof=1))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
