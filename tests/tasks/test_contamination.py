"""Held-out rows that are among the training rows: counted, and never their own examples."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.tasks import Task, contamination, load_task

LONG = "the tenant shall pay the rent on the first day of each month in advance"  # 15 words


def task(
    folder: Path, name: str, train: list[tuple[str, str]], heldout: list[tuple[str, str]], **spec: Any
) -> Task:
    for part, rows in (("train", train), ("test", heldout)):
        lines = [json.dumps({"q": q, "a": a}) + "\n" for q, a in rows]
        (folder / f"{name}-{part}.jsonl").write_text("".join(lines))
    values = {
        "name": name,
        "prompt": "{{ q }}",
        "target": " {{ a }}",
        "train": [{"path": f"{name}-train.jsonl"}],
        "heldout": [{"path": f"{name}-test.jsonl"}],
        "scoring": {"kind": "generate"},
    }
    return load_task({**values, **spec}, data_dir=folder)


def test_rows_are_counted_for_every_pair_of_tasks(tmp_path: Path) -> None:
    math = task(tmp_path, "math", [("2 + 2?", "4"), ("2 - 3?", "-1")], [("2  +  2?", "4"), ("2 + 3?", "5")])
    law = task(
        tmp_path,
        "law",
        [(f"Clause 1: {LONG}.", "Yes"), ("\uff12 + \uff12?", "4")],
        [(f"Clause 2:\n{LONG.upper()}!", "No"), (LONG.replace("rent", "fee"), "No"), ("x", "Yes")],
    )
    found = [astuple(each) for each in contamination([math, law])]
    assert sorted(found) == [
        ("law", "law", 3, 0, 1),
        ("law", "math", 3, 0, 0),
        ("math", "law", 2, 1, 0),
        ("math", "math", 2, 1, 0),
    ]


def test_the_words_of_a_template_are_not_shared_text(tmp_path: Path) -> None:
    question = f"{{{{ q }}}}\nQuestion: {LONG}, is it so that this is the case?\nAnswer:"
    rows = [("one", "Yes"), ("two", "No")]
    plain = task(tmp_path, "law", rows, [("three", "Yes"), ("two", "No")], prompt=question)
    (found,) = contamination([plain])
    assert (found.exact, found.ngram) == (1, 0)
    (found,) = contamination([plain], limit=1)
    assert found.rows == 1


def test_an_example_is_never_the_row_that_is_asked(tmp_path: Path) -> None:
    rows = [(f"Question {i}?", str(i)) for i in range(5)]
    for each_row in (False, True):
        few_shot = {"count": 4, "each_row": each_row}
        shown = task(tmp_path, "t", rows, rows, few_shot=few_shot).heldout_rows()
        for (question, _), row in zip(rows, shown, strict=True):
            assert row.prompt.count(question) == 1
            assert row.prompt.count("Question") == 5
            assert len(set(row.prompt.split("\n\n"))) == 5
    with pytest.raises(ConfigError, match=r"^t\.few_shot\.count: is 5, and held-out row 0 is itself among"):
        task(tmp_path, "t", rows, rows, few_shot={"count": 5}).heldout_rows()


def test_patterns_of_generated_rows_are_no_leak(tmp_path: Path) -> None:
    (found,) = contamination([load_task("demo/math", data_dir=tmp_path)], limit=50)
    assert (found.rows, found.exact, found.ngram) == (50, 0, 0)
