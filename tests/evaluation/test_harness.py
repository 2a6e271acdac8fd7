"""lm-eval beside a run: refused early, shared among processes, kept stage by stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval_tasks import our_task, write_rows, write_tasks
from small_models import model, rows, tokenizer

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import EvaluationOptions, LmEvalOptions, evaluate_task
from sfa_hf.evaluation.harness import Harness, check_lm_eval, lm_eval_table
from sfa_hf.sequence import make_config, run_sequence
from sfa_hf.tasks import Encoding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model, rows, and lm-eval's tasks over them; data paths start at the folder."""
    model().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    write_rows(tmp_path, rows())
    write_tasks(tmp_path / "tasks", "rows.jsonl")
    return tmp_path


def options(folder: Path, **changes: Any) -> LmEvalOptions:
    values = {"tasks": ["small_choice"], "include_path": str(folder / "tasks"), **changes}
    return LmEvalOptions.model_validate(values)


def test_without_lm_eval_its_tasks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("sfa_hf.evaluation.harness.check.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^evaluation\.lm_eval\.tasks: .* \(pip install .*lm-eval"):
        check_lm_eval(LmEvalOptions(tasks=["gsm8k"]))


def test_the_table_shows_every_metric_with_its_error() -> None:
    scores = {"alias": "t", "sample_len": 5, "acc,none": 0.5, "acc_stderr,none": 0.1, "f1,none": 0.25}
    found = {"results": {"t": scores | {"f1_stderr,none": "N/A"}}, "rows": {"t": 5}, "num_fewshot": {"t": 0}}
    lines = [line.split() for line in lm_eval_table(found).splitlines()[1:]]
    assert lines == [
        ["t", "acc,none", "0.5000", "±", "0.1000", "5", "0"],
        ["t", "f1,none", "0.2500", "5", "0"],
    ]


class TestInstalled:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("lm_eval", reason='lm-eval is not installed: pip install ".[lm-eval]"')

    def test_unknown_tasks_are_refused(self, folder: Path) -> None:
        check_lm_eval(options(folder, tasks=["small_choice", "small_generate", "gsm8k"]))
        with pytest.raises(ConfigError, match=r"lm-eval has no task 'smal_choice' .*'small_choice'"):
            check_lm_eval(options(folder, tasks=["smal_choice"]))
        with pytest.raises(ConfigError, match=r"lm_eval\.include_path: there is no folder nowhere"):
            check_lm_eval(options(folder, include_path="nowhere"))

    def test_two_processes_share_the_rows_and_find_what_we_do(self, folder: Path) -> None:
        harness = Harness(options(folder, processes=2), folder, folder, "float32", batch_size=4)
        harness.evaluate(str(folder / "model"), folder / "out.json")
        found = json.loads((folder / "out.json").read_text())
        score = evaluate_task(
            model(), tokenizer(), our_task(folder, "choice"), Encoding(), EvaluationOptions()
        )
        assert found["results"]["small_choice"]["acc,none"] == pytest.approx(score.value)
        assert found["results"]["small_choice"]["acc_stderr,none"] == pytest.approx(score.stderr)
        assert found["rows"] == {"small_choice": 23}
        assert "36/36" in (folder / "out.log").read_text()  # 12 of the 23 rows

    @pytest.mark.slow
    def test_a_failure_shows_the_workers_own_words(self, folder: Path) -> None:
        harness = Harness(options(folder), folder, folder, "float32", batch_size=4)
        (folder / "model" / "config.json").write_text("{}")
        with pytest.raises(RuntimeError, match=r"(?s)the end of .*out\.log.*model_type"):
            harness.evaluate(str(folder / "model"), folder / "out.json")

    @pytest.mark.slow
    def test_a_run_keeps_what_lm_eval_finds_after_each_stage(self, folder: Path) -> None:
        source = [{"path": "rows.jsonl"}]
        task = our_task(folder, "choice").config.model_dump(exclude_defaults=True) | {"train": source}
        config = {
            "model": {"name_or_path": str(folder / "model")},
            "sequence": [task],
            "training": {"max_steps": 6, "learning_rate": 5e-2, "use_cpu": True},
            "evaluation": {"lm_eval": options(folder).model_dump()},
            "data": {"dir": str(folder)},
            "output_dir": str(folder / "run"),
        }
        found = json.loads(run_sequence(make_config(config)).read_text())
        accuracies = [each["results"]["small_choice"]["acc,none"] for each in found["lm_eval"]]
        assert [each["after"] for each in found["lm_eval"]] == [0, 1]
        assert accuracies == pytest.approx([row[0] for row in found["scores"]])
        assert accuracies[0] != accuracies[1]
        (folder / "run" / "lm_eval" / "after-1.json").unlink()  # as if interrupted before it was written
        kept = (folder / "run" / "lm_eval" / "after-0.json").stat().st_mtime_ns
        again = json.loads(run_sequence(make_config(config)).read_text())
        assert again["lm_eval"] == found["lm_eval"]
        assert (folder / "run" / "lm_eval" / "after-0.json").stat().st_mtime_ns == kept
