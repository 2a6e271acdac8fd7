"""The runner on real files, a real (very small) model and real training, in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sfa_hf.errors import ConfigError
from sfa_hf.sequence import make_config, run_sequence
from sfa_hf.tasks import Task
from tests.sequence.small_run import TASKS, small_base, small_data, small_values

STEPS = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def values(base: str, data: Path, tmp_path: Path) -> dict[str, Any]:
    return small_values(base, data, tmp_path / "run", STEPS)


@pytest.fixture(scope="module")
def whole(base: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    _run(small_values(base, data, folder, STEPS))
    return folder


def _results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def _run(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(run_sequence(make_config(values)).read_text())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_results_hold_what_the_contract_says(whole: Path) -> None:
    found = _results(whole)
    assert found["schema"] == 1
    assert found["tasks"] == list(TASKS)
    assert found["metrics_used"] == {"sums": "exact_match", "words": "accuracy", "signs": "nll"}
    assert [len(row) for row in found["scores"]] == [3] * 4
    assert [len(row) for row in found["stderr"]] == [3] * 4
    assert set(found["summary"]) == {
        "average_accuracy",
        "backward_transfer",
        "forgetting",
        "forward_transfer",
        "learning_accuracy",
    }
    merged = [(merge["task"], merge["step"], merge["of"]) for merge in found["merges"]]
    assert merged == [("words", 4, 8), ("words", 8, 8), ("signs", 4, 8), ("signs", 8, 8)]
    moved = [(each["task"], each["from"], each["to"]) for each in found["transitions"]]
    assert moved == [(task, row, row + 1) for task in TASKS[:2] for row in range(3)]  # signs: perplexity
    for each in found["transitions"]:
        column = TASKS.index(each["task"])
        before, after = (found["scores"][each[stage]][column] for stage in ("from", "to"))
        assert (each["gained"] - each["lost"]) / 12 == pytest.approx(after - before)
    assert [each["chance"] for each in found["transitions"]] == pytest.approx([0] * 3 + [0.1] * 3)
    counted = {(each["task"], each["trained_on"]): each["exact"] for each in found["contamination"]}
    assert counted == {(a, b): 12 if a == b else 0 for a in TASKS for b in TASKS}  # held out of one file
    assert "lm_eval" not in found
    assert (found["engine"], found["world_size"]) == ("plain", 1)
    assert found["cost"]["train_seconds"] >= found["cost"]["merge_seconds"] > 0
    assert found["cost"]["stored_bytes"] > 0
    assert found["versions"]["torch"] == torch.__version__
    folder = whole
    assert (folder / "report.html").read_text().count("<td") > 20
    assert (folder / "plots" / "scores.png").stat().st_size > 1000
    assert len((folder / "records" / "after-3" / "sums.jsonl").read_text().splitlines()) == 12
    assert not list(folder.glob("*/checkpoint-*"))
    assert make_config(yaml.safe_load((folder / "config.yaml").read_text())).method.name == "sfa"


@pytest.mark.slow
def test_the_saved_model_is_the_merge_of_the_last_step(values: dict[str, Any], tmp_path: Path) -> None:
    """With p = 1 both runs train alike to the last step, where one of them merges."""
    values["sequence"] = values["sequence"][:2]
    once = {**values, "method": {"name": "sfa", "beta": 0.5, "p": 1.0}, "output_dir": str(tmp_path / "once")}
    plain = {**values, "method": {"name": "sequential"}, "output_dir": str(tmp_path / "plain")}
    _run(once)
    _run(plain)
    anchor = _weights(tmp_path / "once" / "0-sums" / "model")
    assert anchor.keys() == _weights(tmp_path / "plain" / "0-sums" / "model").keys()
    unmerged = _weights(tmp_path / "plain" / "1-words" / "model")
    moved = 0
    for name, merged in _weights(tmp_path / "once" / "1-words" / "model").items():
        expected = 0.5 * anchor[name].double() + 0.5 * unmerged[name].double()
        torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-8)
        moved += int(not torch.equal(merged, unmerged[name]))
    assert moved > 0


def test_a_finished_run_is_left_alone_and_another_config_refused(values: dict[str, Any]) -> None:
    first = _run(values)
    folder = Path(values["output_dir"])
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert _run(values) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files
    with pytest.raises(ConfigError, match=r"method\.beta \(0\.5 there, 0\.25 here\)"):
        _run({**values, "method": {"name": "sfa", "beta": 0.25, "p": 0.5}})
    again = _run({**values, "method": {"name": "sfa", "beta": 0.25, "p": 0.5}, "overwrite": True})
    assert again["method"]["beta"] == 0.25


class _Killed(BaseException):
    """Stands for a signal: nothing catches it on the way."""


@pytest.mark.parametrize("calls", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6)), 12])
def test_an_interrupted_run_continues_to_the_same_weights_and_scores(
    calls: int, whole: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = calls
    heldout_rows = Task.heldout_rows

    def dies_at_last(task: Task, *arguments: Any, **keywords: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise _Killed
        return heldout_rows(task, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "heldout_rows", dies_at_last)
        with pytest.raises(_Killed):
            _run(values)
    found = _run(values)
    for key in ("scores", "stderr", "summary", "metrics_used", "tasks"):
        assert found[key] == _results(whole)[key]
    for index, task in enumerate(TASKS):
        kept = _weights(tmp_path / "run" / f"{index}-{task}" / "model")
        for name, tensor in _weights(whole / f"{index}-{task}" / "model").items():
            assert torch.equal(kept[name], tensor), name


@pytest.mark.slow
def test_a_task_killed_in_training_starts_over(
    whole: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_rows = Task.train_rows
    with monkeypatch.context() as patch:

        def dies_in_second_task(task: Task) -> Any:
            if task.name == "words" and list(tmp_path.glob("run/0-*/model")):
                (tmp_path / "run" / "1-words" / "model.writing").mkdir(parents=True)
                raise _Killed
            return train_rows(task)

        patch.setattr(Task, "train_rows", dies_in_second_task)
        with pytest.raises(_Killed):
            _run(values)
    found = _run(values)
    expected = _results(whole)
    assert found["scores"] == expected["scores"]
    assert [merge["step"] for merge in found["merges"]] == [merge["step"] for merge in expected["merges"]]


def test_one_task_and_a_method_without_merges(values: dict[str, Any]) -> None:
    found = _run({**values, "sequence": values["sequence"][:1], "method": {"name": "sequential"}})
    assert found["merges"] == []
    assert found["summary"]["forgetting"] is None
