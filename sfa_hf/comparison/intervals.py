"""Means over seeds, with 95 % intervals of Student's t."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem, t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        low: lower end of the interval; None with one seed, which says nothing about the others.
        high: its upper end.
        values: by seed.
    """

    mean: float
    low: float | None
    high: float | None
    values: dict[int, float]


def t_interval(values: Mapping[int, float]) -> Interval:
    """Mean -+ t_{0.975, n-1} s / sqrt(n), with s the sample standard deviation (n - 1) over seeds.

    Args:
        values: at least one, by seed.
    """
    sample, count = np.array(list(values.values()), dtype=np.float64), len(values)
    mean = float(sample.mean())
    if count < 2:
        return Interval(mean, None, None, dict(values))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1) * sem(sample))
    return Interval(mean, mean - half, mean + half, dict(values))


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """The interval of ``values - reference``, seed by seed; None where they have no seed in common.

    What a seed does to both (the order of the rows) cancels.
    """
    differences = {seed: value - reference[seed] for seed, value in values.items() if seed in reference}
    return t_interval(differences) if differences else None
