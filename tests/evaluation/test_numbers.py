"""Numbers as people and models write them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.numbers import number
from sfa_hf.evaluation.scoring import generate
from sfa_hf.tasks import Row, Scoring

SAME = {
    "51": ["51", "51.0", "$51.00", "+51", " 51. ", "\\$51", "\\boxed{51}", "$\\boxed{51}$", "102/2", "5.1e1"],
    "1200": ["1,200", "1{,}200", "1200.", "1\\,200", "1\u202f200", "$1,200.00", "1 200"],
    "-5": ["\u22125", "\u20135", "-5", "- 5", "-$5", "\uff0d5", "$-5.00"],
    "1/2": [".5", "0.5", "\\frac{1}{2}", "\\dfrac{2}{4}", "1/2"],
}


@pytest.mark.parametrize("value", SAME)
def test_a_number_is_read_however_it_is_written(value: str) -> None:
    assert {text: number(text) for text in SAME[value]} == dict.fromkeys(SAME[value], Fraction(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "five",
        "51%",
        "12 apples",
        "1,2",
        "1/0",
        "3 4",
        "1.2.3",
        "1e9999",
        "-",
        ".",
        "1, 200",
        "9" * 2000,
        "10\u00b2",
        "1\u00bd",
    ],
)
def test_what_is_no_number_is_none(text: str) -> None:
    assert number(text) is None


def test_units_do_not_count_where_they_are_listed() -> None:
    units = ["%", "dollars", "dollars per day", "km"]
    for text in ("51%", "51 %", "51\\%", "51 dollars", "51 Dollars per day", "51km", "km 51", "$51 dollars."):
        assert number(text, units) == 51
    assert number("51 skm", units) is None
    assert number("51%", ["dollars"]) is None


def test_answers_are_compared_by_value() -> None:
    targets = ["51.0", "$29.00", "1{,}200", "\u22125"]
    asked = [Row("p", target, index=i) for i, target in enumerate(targets)]
    scoring = Scoring(kind="generate", metric="exact_match", compare="number")
    judged = generate.judge("t", asked, [" 51", "29", "1200\n", "-5"], scoring)
    assert (judged.value, [record["score"] for record in judged.records]) == (1.0, [1.0] * 4)
    assert generate.judge("t", asked, ["51%", "29 or 30", "1.200", "5"], scoring).value == 0
    with pytest.raises(
        ConfigError, match=r"^t\.scoring\.compare: is number, and held-out row 0 has .*'five'"
    ):
        generate.judge("t", [Row("p", "five")], ["5"], scoring)


def test_patterns_are_tried_in_order_each_with_its_groups() -> None:
    patterns = [r"#### (\S+)", r"boxed\{(\d+)\}|answer is (\d+)"]
    scoring = Scoring(kind="generate", metric="exact_match", extract=patterns)
    outputs = ["#### 7, boxed{3}", "so boxed{7}", "the answer is 7", "7"]
    judged = generate.judge("t", [Row("p", "#### 7", index=i) for i in range(4)], outputs, scoring)
    assert [record["answer"] for record in judged.records] == ["7,", "7", "7", None]
