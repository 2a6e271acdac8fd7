"""Worked examples before held-out prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.tasks import Task, load_task


def task(folder: Path, **few_shot: object) -> Task:
    for part in ("train", "test"):
        rows = [{"q": f"{part} {i}?", "a": f"{i}"} for i in range(8)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "name": "t",
        "prompt": "{{ q }}",
        "target": " {{ a }}",
        "train": [{"path": "train.jsonl"}],
        "heldout": [{"path": "test.jsonl"}],
        "scoring": {"kind": "generate"},
        "few_shot": few_shot,
    }
    return load_task(spec, search=[], data_dir=folder)


def examples(prompt: str) -> list[str]:
    return prompt.split("\n\n")[:-1]


def test_every_prompt_follows_the_same_training_rows(tmp_path: Path) -> None:
    rows = task(tmp_path, count=3).heldout_rows()
    shown = {tuple(examples(row.prompt)) for row in rows}
    (kept,) = shown
    assert len(set(kept)) == 3
    assert set(kept) <= {f"train {i}? {i}" for i in range(8)}
    assert [row.prompt.split("\n\n")[-1] for row in rows] == [f"test {i}?" for i in range(8)]
    assert [row.target for row in rows] == [f" {i}" for i in range(8)]
    assert rows == task(tmp_path, count=3).heldout_rows()


def test_another_seed_shows_others_and_each_row_may_have_its_own(tmp_path: Path) -> None:
    same = task(tmp_path, count=3).heldout_rows()
    assert same != task(tmp_path, count=3, seed=1).heldout_rows()
    own = task(tmp_path, count=3, each_row=True).heldout_rows()
    assert len({tuple(examples(row.prompt)) for row in own}) > 1
    part = task(tmp_path, count=3, each_row=True).heldout_rows(limit=4)
    assert all(own[row.index] == row for row in part)  # a subset shows what the whole does


def test_the_evaluation_may_ask_for_another_number(tmp_path: Path) -> None:
    small = task(tmp_path, count=3)
    assert all(len(examples(row.prompt)) == 5 for row in small.heldout_rows(few_shot=5))
    assert [row.prompt for row in small.heldout_rows(few_shot=0)] == [f"test {i}?" for i in range(8)]
    assert [row.prompt for row in small.train_rows()] == [f"train {i}?" for i in range(8)]


def test_more_examples_than_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^t\.few_shot\.count: is 9, and the task has 8 training rows"):
        task(tmp_path, count=9).heldout_rows()
    with pytest.raises(ConfigError, match=r"^t\.few_shot\.count: is 9"):
        task(tmp_path).check(few_shot=9)
