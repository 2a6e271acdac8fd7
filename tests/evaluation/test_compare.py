from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.evaluation import paired_difference, transitions

hits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def records(scores: list[float]) -> list[dict[str, Any]]:
    return [{"index": i, "prompt": f"p{i}", "target": "t", "score": score} for i, score in enumerate(scores)]


def test_a_difference_by_hand() -> None:
    before, after = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]
    found = paired_difference(records(before), records(after))
    assert (found.value, found.rows) == (-0.5, 4)
    assert found.stderr == pytest.approx(math.sqrt(1 / 3) / 2)  # changes -1, 0, 0, -1
    # a resample's mean is -k/4, k ~ Binomial(4, 1/2): P(0) = P(-1) = 1/16 are both beyond 2.5 %
    assert (found.low, found.high) == (-1.0, 0.0)
    assert found.p_value == pytest.approx(2 / 16, rel=0.1)


def test_a_single_row_tells_nothing_of_chance() -> None:
    found = paired_difference(records([0.0]), records([1.0]))
    assert (found.value, found.low, found.high, found.stderr, found.p_value) == (1.0, 1.0, 1.0, 0.0, 1.0)


def test_pairing_sees_what_unpaired_errors_hide() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=200)
    found = paired_difference(records(before.tolist()), records((before - 0.1).tolist()))
    assert found.p_value < 0.001
    assert found.high == pytest.approx(-0.1)
    assert found.low == pytest.approx(-0.1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(40):
        changes = random.normal(0.2, 1.0, size=60)
        found = paired_difference(records([0.0] * 60), records(changes.tolist()))
        covered += found.low <= 0.2 <= found.high
    assert covered >= 34  # 38 expected of 95 %; fewer than 34 has probability 1 %


def test_the_same_run_twice_differs_by_nothing() -> None:
    found = paired_difference(records([0.0, 1.0, 1.0]), records([0.0, 1.0, 1.0]))
    assert (found.value, found.stderr, found.low, found.high, found.p_value) == (0, 0, 0, 0, 1)


@given(hits)
def test_transitions_account_for_every_row_and_for_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    before, after = (records([float(pair[side]) for pair in pairs]) for side in (0, 1))
    found = transitions(before, after)
    assert found.rows == len(pairs)
    assert found.kept + found.lost == sum(a for a, _ in pairs)
    assert found.gained - found.lost == sum(b for _, b in pairs) - sum(a for a, _ in pairs)
    assert found.lost_beyond_chance(0.0) == found.lost / found.rows
    assert transitions(after, before).lost == found.gained


def test_guessing_alone_leaves_no_transition_beyond_chance() -> None:
    random = np.random.default_rng(4)
    guesses = [random.random(20_000) < 0.25 for _ in range(2)]
    known = np.arange(20_000) < 6_000  # of 20,000 rows, 6,000 known before; 2,000 of them forgotten
    forgotten = np.arange(20_000) < 2_000
    before = np.where(known, True, guesses[0])
    after = np.where(known & ~forgotten, True, guesses[1])
    found = transitions(records(before.astype(float).tolist()), records(after.astype(float).tolist()))
    assert found.lost / found.rows > 0.15
    assert found.lost_beyond_chance(0.25) == pytest.approx(0.75 * 0.1, abs=0.01)  # a quarter is guessed again
    assert found.gained_beyond_chance(0.25) == pytest.approx(0.0, abs=0.01)


def test_records_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="not about the same rows"):
        paired_difference(records([1.0, 0.0]), records([1.0]))
    changed = records([1.0, 0.0])
    changed[1]["prompt"] = "another"
    with pytest.raises(ValueError, match="row 1 has another prompt"):
        transitions(records([1.0, 0.0]), changed)
    with pytest.raises(ValueError, match="neither"):
        transitions(records([0.5]), records([1.0]))
    with pytest.raises(ValueError, match="chance is 1"):
        transitions(records([0.0]), records([1.0])).lost_beyond_chance(1.0)
