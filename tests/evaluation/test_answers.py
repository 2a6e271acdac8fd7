from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.evaluation.answers import cut_at, extract, normalised

GSM8K = r"#### (-?[0-9.,]+)"


@pytest.mark.parametrize(
    ("text", "pattern", "answer"),
    [
        ("so 3 + 4 = 7\n#### 7", GSM8K, "7"),
        ("#### 5\nno, wait\n#### 12", GSM8K, "12"),
        ("the answer is 7", GSM8K, None),
        ("1, 2, 3", r"\d", "3"),
        ("as it is", None, "as it is"),
        ("a=", r"a=(\d)?", None),
    ],
)
def test_the_last_match_counts(text: str, pattern: str | None, answer: str | None) -> None:
    assert extract(text, pattern) == answer


@given(st.lists(st.integers(-999, 999), min_size=1), st.text(alphabet="abc \n"))
def test_an_answer_is_found_whatever_was_said_before(numbers: list[int], between: str) -> None:
    text = "".join(f"{between}#### {number}\n" for number in numbers)
    assert extract(text, GSM8K) == str(numbers[-1])


@given(st.text())
def test_normalising_twice_is_normalising_once_and_ignores_white_space(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert normalised(f"\n {text}\t") == once
    assert "".join((once or "").split()) == "".join(text.split())


@given(st.text(alphabet="abc\n"), st.lists(st.text(alphabet="abc\n", min_size=1), max_size=3))
def test_cut_text_is_the_longest_beginning_without_a_stop_string(text: str, stops: list[str]) -> None:
    cut = cut_at(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)
    if cut != text:
        assert any(text[len(cut) :].startswith(stop) for stop in stops)
