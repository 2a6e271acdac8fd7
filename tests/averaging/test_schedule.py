"""Merges fall on K, 2K, ... and T: for every T, p and K."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.averaging.schedule import interval, is_merge_step, merges_until

TOTALS = st.integers(1, 3000)
FRACTIONS = st.floats(0, 1, exclude_min=True)


def merge_steps(total: int, every: float) -> list[int]:
    return [step for step in range(total + 1) if is_merge_step(step, total, every)]


@given(TOTALS, FRACTIONS)
def test_merges_are_the_rounded_multiples_of_the_fraction_and_the_last_step(total: int, p: float) -> None:
    every = interval(p, total)
    assert every >= 1
    steps = merge_steps(total, every)
    assert steps[-1] == total
    for count, step in enumerate(steps[:-1], start=1):
        assert abs(step - count * every) <= 0.5 + 1e-9 * total


@given(TOTALS, st.integers(1, 64))
def test_a_task_in_equal_parts_is_merged_once_a_part(total: int, parts: int) -> None:
    steps = merge_steps(total, interval(1 / parts, total))
    assert len(steps) == min(parts, total)
    between = [later - earlier for earlier, later in pairwise([0, *steps])]
    assert max(between) - min(between) <= 1


@given(TOTALS, st.integers(1, 4000))
def test_a_number_of_steps_merges_at_its_multiples_and_at_the_end(total: int, every: int) -> None:
    assert merge_steps(total, every) == sorted({*range(every, total + 1, every), total})


@given(TOTALS, st.floats(1, 4000), st.data())
def test_merges_until_a_step_are_counted(total: int, every: float, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total))
    assert merges_until(step, total, every) == sum(merge <= step for merge in merge_steps(total, every))


def test_the_papers_settings() -> None:
    assert merge_steps(200, interval(0.25, 200)) == [50, 100, 150, 200]
    assert merge_steps(200, interval(1.0, 200)) == [200]
    assert merge_steps(250, interval(0.25, 250)) == [63, 125, 188, 250]
    assert merge_steps(10, interval(0.3, 10)) == [3, 6, 9, 10]


def test_nothing_merges_before_the_first_step() -> None:
    assert not is_merge_step(0, 10, 1)
