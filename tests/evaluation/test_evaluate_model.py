"""The command line, from arguments to what it prints and writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from small_models import SCORINGS, model, task, tokenizer

from sfa_hf.commands.main import run_command
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.records import read_records


def main(arguments: Sequence[str]) -> None:
    run_command("evaluate", arguments)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a model, a task file and its data."""
    model().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    content = task(tmp_path, SCORINGS["choice"]).config.model_dump(mode="json", exclude_none=True)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def arguments(folder: Path, **changes: str) -> list[str]:
    values = {
        "task": f"{folder}/small.yaml",
        "data.dir": str(folder),
        "output_dir": f"{folder}/out",
    } | changes
    return [f"{folder}/model", *(f"{key}={value}" for key, value in values.items() if value)]


def test_it_prints_the_score_and_writes_it_with_its_records(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(saved, **{"evaluation.limit": "9"}))
    (score,) = json.loads((saved / "out" / "scores.json").read_text())
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["task", "metric", "score", "rows"]
    assert line.startswith(f"small  accuracy  {score['value']:.4f} ± {score['stderr']:.4f}  9")
    records = read_records(saved / "out" / "small.jsonl")
    assert score["rows"] == len(records) == 9
    assert score["value"] == pytest.approx(sum(record["score"] for record in records) / 9)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": ""}, "task: is missing"),
        ({"task": "nope"}, "task: there is no task 'nope'"),
        (
            {"evaluation.batchsize": "3"},
            "evaluation.batchsize: is not a known key .did you mean 'batch_size'",
        ),
        ({"evaluation.batch_size": "0"}, "evaluation.batch_size: is 0 .must be greater than 0"),
        ({"data.dir": "/nowhere"}, "small.heldout.0.path: there is no file /nowhere/rows.jsonl"),
        ({"model.dtype": "int4"}, "model.dtype: is 'int4' .must be 'float32'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(saved: Path, changes: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        main(arguments(saved, **changes))
    assert not (saved / "out").exists()


def test_what_a_model_lost_against_its_base_is_reported(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, spread in (("base", 0.3), ("tuned", 0.1)):
        longer = model(max_position_embeddings=512, initializer_range=spread)
        longer.save_pretrained(saved / name)
        tokenizer().save_pretrained(saved / name)
    main([f"{saved}/tuned", "task=general", f"base={saved}/base", f"output_dir={saved}/out"])
    out = capsys.readouterr().out
    own, base = (json.loads((saved / each / "scores.json").read_text())[0] for each in ("out", "out/base"))
    assert own["rows"] == base["rows"] > 20
    assert f"general: forgetting {base['value'] - own['value']:+.4f} ± " in out
    assert own["value"] != base["value"]
    main([f"{saved}/base", "task=general", f"base={saved}/base", "evaluation.limit=3"])
    assert "general: forgetting +0.0000 ± 0.0000 nats per token" in capsys.readouterr().out


def test_two_tasks_of_one_name_would_share_a_file(saved: Path) -> None:
    with pytest.raises(ConfigError, match="two tasks are named 'small'"):
        main(arguments(saved, task=f"[{saved}/small.yaml, {saved}/small.yaml]"))
