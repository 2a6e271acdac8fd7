from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.sequence.scores import summary

MATRICES = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=n + 1, max_size=n + 1)
)


def test_the_definitions_on_a_matrix_worked_out_by_hand() -> None:
    found = summary([[0.1, 0.2, 0.0], [0.9, 0.3, 0.1], [0.5, 0.8, 0.2], [0.4, 0.6, 0.7]])
    assert found["average_accuracy"] == pytest.approx((0.4 + 0.6 + 0.7) / 3)
    assert found["learning_accuracy"] == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert found["backward_transfer"] == pytest.approx(((0.4 - 0.9) + (0.6 - 0.8)) / 2)
    assert found["forgetting"] == pytest.approx(((0.9 - 0.4) + (0.8 - 0.6)) / 2)
    assert found["forward_transfer"] == pytest.approx(((0.3 - 0.2) + (0.2 - 0.0)) / 2)


def test_one_task_has_nothing_to_forget() -> None:
    found = summary([[0.0], [0.5]])
    assert found["average_accuracy"] == 0.5
    assert found["backward_transfer"] is found["forgetting"] is found["forward_transfer"] is None


def test_a_matrix_with_a_row_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows"):
        summary([[0.0, 0.0], [0.5, 0.0]])


@given(MATRICES)
def test_forgetting_is_never_less_than_lost_transfer(scores: list[list[float]]) -> None:
    found = summary(scores)
    if len(scores) > 2:
        assert found["forgetting"] >= -found["backward_transfer"] - 1e-12
        assert -1 <= found["backward_transfer"] <= 1
