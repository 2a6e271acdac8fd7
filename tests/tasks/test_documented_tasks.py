"""The task files of docs/configuration.md, on small twins of the data sets' formats."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sfa_hf.evaluation.scoring import generate
from sfa_hf.tasks import load_task

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TASKS = [
    text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if text.startswith("name:")
]
BY_NAME = {yaml.safe_load(text)["name"]: text for text in TASKS if "contracts/" not in text}

SVAMP = [
    {"Body": "Ann has 5 pens.", "Question": f"She gets {i}. How many?", "Answer": 5.0 + i} for i in range(4)
]
AQUA = [
    {"question": f"{i}?", "options": ["A)1", "B)2", "C)3", "D)4", "E)5"], "correct": "B"} for i in range(4)
]
LAW = [["A lease ends when,", "notice is given", "rent falls due", "both agree", "never", "A"]]
CRUX = [{"code": "def f(x):\n    return x[::-1]", "input": "'ab'", "output": "'ba'", "id": "sample_0"}]
CHATS = [
    {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "So."}]}
    for i in range(9)
]
#: The first held-out row of each.
ROWS = {
    "svamp": ("Ann has 5 pens. She gets 0. How many?\nAnswer:", " 5.0"),
    "aqua": ("2?\nA)1\nB)2\nC)3\nD)4\nE)5\nAnswer:", " B"),
    "mmlu_law": (
        "A lease ends when,\nA. notice is given\nB. rent falls due\nC. both agree\nD. never\nAnswer:",
        " A",
    ),
    "cruxeval": ("def f(x):\n    return x[::-1]\nassert f('ab') ==", " 'ba'"),
    "assistant": ("user: 8?", "So."),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def lines(name: str, rows: list[dict[str, Any]]) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    for part in ("train", "test"):
        (tmp_path / f"svamp-{part}.json").write_text(json.dumps(SVAMP))
    for part in ("dev", "test"):
        (tmp_path / part).mkdir()
        with (tmp_path / part / f"professional_law_{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(LAW)
    lines("aqua.jsonl", AQUA)
    lines("cruxeval.jsonl", CRUX)
    lines("chats.jsonl", CHATS)
    return tmp_path


@pytest.mark.parametrize("name", ROWS)
def test_a_documented_task_is_read_at_the_first_try(name: str, data: Path) -> None:
    assert len(BY_NAME[name].splitlines()) <= 8
    (data / "task.yaml").write_text(BY_NAME[name])
    task = load_task(str(data / "task.yaml"), data_dir=data)
    row = task.heldout_rows()[0]
    assert (row.prompt, row.target) == ROWS[name]
    if name == "svamp":
        outputs = [" 5", " 6 pens.", " $7", " 9"]
        assert generate.judge(name, task.heldout_rows(), outputs, task.config.scoring).value == 0.75


def test_all_documented_tasks_are_here() -> None:
    assert set(BY_NAME) == set(ROWS)
