"""Mathematical expressions, compared by value."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.scoring import generate
from sfa_hf.tasks import Row, Scoring

needs_math_verify = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs math-verify")

#: Right answer, the model's, and whether they are equal.
PAIRS = [
    ("\\frac{1}{2}", "0.5", True),
    ("14\\sqrt{2}", "\\sqrt{392}", True),
    ("14\\sqrt{2}", "14", False),
    ("x+1", "1 + x", True),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\dfrac{\\pi}{2})", True),
    ("\\{1,2\\}", "\\{2, 1\\}", True),
    ("[0,1)", "[0,1]", False),
    ("\\text{Evelyn}", "Evelyn", True),
    ("\\text{Evelyn}", "\\text{Eva}", False),
    ("2^{10}", "1024", True),
]


def judged(pairs: list[tuple[str, str]], **scoring: object) -> list[float]:
    rows = [Row("p", right, index=place) for place, (right, _) in enumerate(pairs)]
    how = Scoring(kind="generate", metric="exact_match", compare="latex", **scoring)  # type: ignore[arg-type]
    found = generate.judge("t", rows, [given for _, given in pairs], how)
    assert found.value == sum(record["score"] for record in found.records) / len(rows)
    return [record["score"] for record in found.records]


@needs_math_verify
def test_expressions_are_compared_by_value() -> None:
    wanted = [float(same) for _, _, same in PAIRS]
    boxed = [(f"so $\\boxed{{{right}}}$", f"well, \\boxed{{{given}}}") for right, given, _ in PAIRS]
    assert judged(boxed, extract=r"\\boxed\{(.*)\}") == wanted
    assert judged([(right, f"first $3$, then $\\boxed{{{given}}}$.") for right, given, _ in PAIRS]) == wanted
    assert judged([("5", "The answer is 5."), ("5", "I do not know")]) == [1, 0]


@needs_math_verify
def test_an_answer_without_end_is_wrong_and_a_target_that_says_nothing_is_an_error() -> None:
    assert judged([("7", "\\boxed{10^{10^{9}}}"), ("7", "$7$")]) == [0, 1]
    with pytest.raises(ConfigError, match=r"^t\.scoring\.compare: is latex, and held-out row 0 has"):
        judged([("$$", "7")])


def test_it_is_refused_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfa_hf.evaluation.latex.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'^t\.scoring\.compare: is latex, .*pip install "sfa_hf\[math\]"'):
        judged([("7", "7")])
