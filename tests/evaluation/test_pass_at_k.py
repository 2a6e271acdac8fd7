"""pass@k against its definition."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.evaluation.metrics.loading import compute
from sfa_hf.evaluation.pass_at_k import pass_at_k

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@given(counts)
def test_it_is_the_published_estimator(drawn: tuple[int, int, int]) -> None:
    n, c, k = drawn
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 2), (4, 0, 2), (4, 4, 1)])
def test_it_is_the_share_of_draws_with_a_pass_in_them(n: int, c: int, k: int) -> None:
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_many_samples_neither_overflow_nor_cancel() -> None:
    assert pass_at_k(10**5, 1, 1) == pytest.approx(1e-5, rel=1e-9)
    assert pass_at_k(10**5, 10, 10**4) == pytest.approx(1 - 0.9**10, rel=1e-3)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 1, 6), (5, 1, 0)])
def test_what_is_not_defined_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(n, c, k)


def test_the_metric_averages_over_prompts() -> None:
    found = compute("pass_at_k", samples=[4, 4, 4], passed=[0, 1, 4], k=[1, 2])
    assert found["pass@1"] == pytest.approx((0 + 1 / 4 + 1) / 3)
    assert found["pass@2"] == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert found["pass@1_stderr"] == pytest.approx(np.std([0, 1 / 4, 1], ddof=1) / math.sqrt(3))
