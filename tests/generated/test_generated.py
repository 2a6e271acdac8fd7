from __future__ import annotations

import ast
import itertools
import re

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.generated import GENERATORS, generate, split_of
from sfa_hf.generated.law import CATEGORIES

NAMES = tuple(GENERATORS)


def contents(name: str, split: str, rows: int, seed: int = 0) -> list[str]:
    return [row[GENERATORS[name].content] for row in generate(name, split, rows, seed)]


@pytest.mark.parametrize("name", NAMES)
def test_held_out_rows_share_nothing_with_training_rows_of_any_seed(name: str) -> None:
    held_out = {text for seed in (0, 7) for text in contents(name, "test", 2000, seed)}
    train = {text for seed in (0, 1) for text in contents(name, "train", 10_000, seed)}
    assert not held_out & train
    assert {split_of(text) for text in held_out} == {"test"}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_distinct_and_the_same_for_the_same_seed(name: str) -> None:
    first = list(generate(name, "train", 500, seed=3))
    assert first == list(itertools.islice(generate(name, "train", 900, seed=3), 500))
    assert first != list(generate(name, "train", 500, seed=4))
    assert len({row[GENERATORS[name].content] for row in first}) == 500


@pytest.mark.parametrize("name", NAMES)
def test_there_are_hundreds_of_thousands_of_rows(name: str) -> None:
    """Two independent samples of n out of N share about n*n/N; few shared rows mean a large N."""
    n = 20_000
    shared = len(set(contents(name, "train", n, seed=0)) & set(contents(name, "train", n, seed=1)))
    assert n * n / max(shared, 1) > 200_000


def test_a_generator_that_runs_dry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfa_hf.generated.math._LARGEST", 2)
    monkeypatch.setattr("sfa_hf.generated.math.NAMES", ("Ada",))
    monkeypatch.setattr("sfa_hf.generated.math.THINGS", ("pens",))
    with pytest.raises(ConfigError, match="generated:math: has no 100000 distinct rows"):
        list(generate("math", "train", 100_000))


def test_math_answers_are_right() -> None:
    for row in generate("math", "train", 3000):
        numbers = [int(number) for number in re.findall(r"\d+", row["question"])]
        if row["kind"] == "expression":
            text = re.search(r"\d+(?: [+-] \d+)+", row["question"])
            assert text is not None
            value = sum(int(term) for term in re.findall(r"[+-]?\d+", text[0].replace(" ", "")))
        else:
            value = numbers[0] + (numbers[1] if row["kind"] == "sum" else -numbers[1])
        assert row["answer"] == str(value)
        assert value >= 0


def test_law_answers_are_among_balanced_choices() -> None:
    rows = list(generate("law", "train", 4000))
    yes = [row["answer"] for row in rows if row["choices"] == ["Yes", "No"]]
    assert 0.45 < yes.count("Yes") / len(yes) < 0.55
    for row in rows:
        assert row["answer"] in row["choices"]
        if row["choices"] == list(CATEGORIES):
            assert row["answer"] == row["category"]
        else:
            assert (row["answer"] == "Yes") == (f"a {row['category']} clause" in row["question"])
    shares = [sum(row["category"] == each for row in rows) / len(rows) for each in CATEGORIES]
    assert min(shares) > 0.8 / len(CATEGORIES)


def test_code_is_one_statement_that_compiles() -> None:
    for row in generate("code", "train", 3000):
        assert len(ast.parse(row["code"]).body) == 1
        compile(row["code"], "generated", "exec")
        assert "\n" not in row["code"]


def test_code_means_what_the_english_says() -> None:
    environment = {"rate": 8, "size": 2, "rows": [5, 6, 7]}
    sample = {row["kind"]: row for row in generate("code", "train", 500)}
    assert set(sample) == {
        "assign",
        "combine",
        "increase",
        "append",
        "print",
        "length",
        "element",
        "condition",
        "loop",
    }
    for english, code, name, value in (
        ("set total to rate plus 4", "total = rate + 4", "total", 12),
        ("set total to element 1 of rows minus size", "total = rows[1] - size", "total", 4),
        ("if rate is greater than 5 set size to rate", "if rate > 5: size = rate", "size", 8),
    ):
        scope = dict(environment)
        exec(code, scope)
        assert scope[name] == value, english
