"""Merges fall on K, 2K, ... and T: for every T, p and K."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.schedule import interval, is_merge_step, merges_until

TOTALS = st.integers(1, 3000)
FRACTIONS = st.floats(0, 1, exclude_min=True)


def merge_steps(total: int, every: int) -> list[int]:
    return [step for step in range(total + 1) if is_merge_step(step, total, every)]


@given(TOTALS, FRACTIONS)
def test_the_interval_is_the_rounded_fraction_and_at_least_one_step(total: int, p: float) -> None:
    every = interval(p, total)
    assert every >= 1
    assert every == 1 or abs(every - p * total) <= 0.5


@given(TOTALS, st.integers(1, 4000))
def test_merges_are_the_multiples_of_the_interval_and_the_last_step(total: int, every: int) -> None:
    assert merge_steps(total, every) == sorted({*range(every, total + 1, every), total})


@given(TOTALS, st.integers(1, 4000), st.data())
def test_merges_until_a_step_are_counted(total: int, every: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total))
    assert merges_until(step, total, every) == sum(merge <= step for merge in merge_steps(total, every))


def test_the_papers_settings() -> None:
    assert merge_steps(200, interval(0.25, 200)) == [50, 100, 150, 200]
    assert merge_steps(200, interval(1.0, 200)) == [200]
    assert merge_steps(10, interval(0.3, 10)) == [3, 6, 9, 10]


def test_nothing_merges_before_the_first_step() -> None:
    assert not is_merge_step(0, 10, 1)
