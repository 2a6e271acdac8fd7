from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.evaluation.statistics import Confusion, mean_stderr, ratio_stderr

finite = st.floats(-1e3, 1e3)
counts = st.lists(st.integers(0, 50), min_size=4, max_size=4)


@given(st.lists(finite, min_size=2, max_size=50))
def test_mean_stderr_is_the_sample_deviation_over_root_n(values: list[float]) -> None:
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert mean_stderr(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(2, 500), st.data())
def test_mean_stderr_of_hits_is_binomial(rows: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, rows))
    p = hits / rows
    found = mean_stderr([1.0] * hits + [0.0] * (rows - hits))
    assert found == pytest.approx(math.sqrt(p * (1 - p) / (rows - 1)), abs=1e-12)


@given(st.lists(finite, min_size=2, max_size=50), st.integers(1, 9))
def test_ratio_stderr_over_equal_denominators_is_that_of_the_mean(values: list[float], size: int) -> None:
    found = ratio_stderr(values, [size] * len(values))
    assert found == pytest.approx(mean_stderr(values) / size, rel=1e-6, abs=1e-9)


def test_ratio_stderr_is_the_spread_of_the_ratio_over_resampled_rows() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(5, 40, size=400)
    totals = tokens * random.normal(2.0, 0.5, size=400)
    draws = random.integers(0, 400, size=(4000, 400))
    spread = (totals[draws].sum(1) / tokens[draws].sum(1)).std()
    assert ratio_stderr(totals.tolist(), tokens.tolist()) == pytest.approx(spread, rel=0.05)


def test_one_row_has_no_spread() -> None:
    assert mean_stderr([0.5]) == ratio_stderr([3.0], [2]) == Confusion(1, 0, 0, 0).f1_stderr() == 0.0


def test_f1_by_hand() -> None:
    predicted = [True, True, True, False, False, False]
    actual = [True, True, False, True, False, False]
    found = Confusion.count(predicted, actual)
    assert found == Confusion(true_positive=2, false_positive=1, false_negative=1, true_negative=2)
    assert (found.precision, found.recall) == (2 / 3, 2 / 3)
    assert found.f1 == pytest.approx(2 / 3)


@given(counts)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(cells: list[int]) -> None:
    found = Confusion(*cells)
    if found.true_positive:
        harmonic = 2 / (1 / found.precision + 1 / found.recall)
        assert found.f1 == pytest.approx(harmonic)
    else:
        assert found.f1 == 0.0


def test_f1_stderr_is_the_spread_of_f1_over_resampled_rows() -> None:
    cells = Confusion(30, 20, 10, 200)
    kinds = np.repeat(np.arange(4), [30, 20, 10, 200])
    draws = np.random.default_rng(2).choice(kinds, size=(4000, kinds.size))
    tp, fp, fn = ((draws == kind).sum(1) for kind in range(3))
    assert cells.f1_stderr() == pytest.approx((2 * tp / (2 * tp + fp + fn)).std(), rel=0.1)
    assert cells.f1_stderr() == cells.f1_stderr()
