"""Two folders of records, and the command that compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sfa_hf.commands.main import run_command
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.records import write_records

BEFORE, AFTER = [1, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0, 0]


def records(scores: list[float], **more: Any) -> list[dict[str, Any]]:
    return [
        {"index": i, "prompt": f"p{i}", "target": "t", "score": score, **more}
        for i, score in enumerate(scores)
    ]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two run folders: choices of four scored in two stages, and text by perplexity."""
    for name, stages in {"a": [[0] * 8, BEFORE], "b": [[0] * 8, AFTER]}.items():
        for stage, scores in enumerate(stages):
            folder = tmp_path / name / "records" / f"after-{stage}"
            write_records(folder / "law.jsonl", records(scores, choices=list("abcd")))
            write_records(folder / "text.jsonl", records([-2.5 - score for score in scores]))
    return tmp_path / "a", tmp_path / "b"


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, list[str]]:
    run_command("runs", [str(each) for each in arguments])
    return {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}


def test_the_last_stages_are_compared_row_by_row(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lines(capsys, *runs, f"output={tmp_path}/out.json")
    assert found["law"][1:4] == ["0.3750", "0.5000", "+0.1250"]
    # of 3 rows never right, chance 1/4 explains 1 lost and 1 gained: of 8, (1 - 1)/8 and (2 - 1)/8 remain
    assert found["law"][-5:] == ["8", "1", "(0.0000)", "2", "(0.1250)"]
    assert found["text"][-2:] == ["-", "-"]
    law, text = json.loads((tmp_path / "out.json").read_text())
    assert (law["task"], law["chance"], law["moved"]["gained"]) == ("law", 0.25, 2)
    assert (text["task"], text["moved"]) == ("text", None)
    assert law["difference"]["low"] <= law["difference"]["value"] <= law["difference"]["high"]


def test_stages_of_one_run_are_compared_too(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = lines(capsys, runs[0], runs[0], "after=[0,1]")
    assert found["law"][1:4] == ["0.0000", "0.3750", "+0.3750"]
    assert lines(capsys, runs[0], runs[0], "after=0")["law"][3] == "+0.0000"


def test_plain_folders_of_records_are_compared(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs[1] / "records" / "after-1"
    assert lines(capsys, folder, runs[0])["law"][3] == "-0.1250"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "BEFORE: is missing"),
        (["a", "nowhere"], "nowhere: is not a folder"),
        (["a", "b", "afetr=1"], "afetr: is not a known key .did you mean 'after'"),
        (["a", "b", "after=9"], r"a/records/after-9: holds no records"),
        (["a", "b", "after=last"], "after: is 'last'"),
        (["a/records/after-1", "b", "after=1"], "after: is 1, and a/records/after-1 is not a run's folder"),
        (["a", "other"], "other: has records of math, and a of law, text"),
        (["a", "shorter"], r"shorter/law.jsonl: cannot be compared .* not about the same rows"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(runs[0].parent / "other" / "math.jsonl", records([1.0]))
    write_records(runs[0].parent / "shorter" / "law.jsonl", records([1.0]))
    monkeypatch.chdir(runs[0].parent)
    with pytest.raises(ConfigError, match=f"^{message}"):
        run_command("runs", arguments)
