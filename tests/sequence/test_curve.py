"""Scores in the middle of training: they are there once, whatever was interrupted, and change nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import curve
from sfa_hf.sequence import make_config, run_sequence
from tests.sequence.small_run import small_base, small_data, small_values

TASKS = ("sums", "words")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With dropout, so that training draws random numbers, which a score must not use up."""
    folder = tmp_path_factory.mktemp("models")
    base = shutil.copytree(small_base(folder), folder / "dropping")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "hidden_dropout": 0.2}))
    return str(base)


@pytest.fixture
def values(base: str, tmp_path: Path) -> dict[str, Any]:
    found = small_values(base, small_data(tmp_path), tmp_path / "run", steps=4)
    found["sequence"] = found["sequence"][:2]
    found["evaluation"] = {"every": 2, "every_limit": 4, "records": False}
    found["training"] |= {"save_steps": 2}
    return found


def _run(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(run_sequence(make_config(values)).read_text())


def _without_times(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in point.items() if key != "seconds"} for point in points]


class _Killed(BaseException):
    """Stands for a signal: nothing catches it on the way."""


@pytest.mark.slow
def test_a_curve_leaves_training_alone_and_survives_a_kill(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {**values, "evaluation": {}, "output_dir": str(tmp_path / "plain")}
    assert _run(plain)["curve"] == []
    whole = _run(values)
    places = [(point["task"], point["step"], point["of"]) for point in whole["curve"]]
    assert places == [(task, step, 4) for task in TASKS for step in (2, 4)]
    assert all(list(point["scores"]) == list(TASKS) for point in whole["curve"])
    assert whole["cost"]["eval_seconds"] > sum(point["seconds"] for point in whole["curve"]) > 0
    for index, task in enumerate(TASKS):
        kept = load_file(tmp_path / "run" / f"{index}-{task}" / "model" / "model.safetensors")
        for name, tensor in load_file(
            tmp_path / "plain" / f"{index}-{task}" / "model" / "model.safetensors"
        ).items():
            assert torch.equal(kept[name], tensor), name

    evaluate, calls = curve.evaluate_task, 0

    def dies_in_second_task(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:  # at step 4 of the second task, behind the checkpoint of step 2
            raise _Killed
        return evaluate(*arguments, **named)

    killed = {**values, "output_dir": str(tmp_path / "killed")}
    with monkeypatch.context() as patch:
        patch.setattr(curve, "evaluate_task", dies_in_second_task)
        with pytest.raises(_Killed):
            _run(killed)
    assert (tmp_path / "killed" / "1-words" / "checkpoint-2").is_dir()
    assert _without_times(_run(killed)["curve"]) == _without_times(whole["curve"])


@pytest.mark.slow
def test_a_point_that_is_a_merge_step_sees_the_merged_weights(values: dict[str, Any]) -> None:
    """At beta = 1 a merge brings back the anchor: the scores of the end of the task before."""
    values |= {"method": {"name": "sfa", "beta": 1.0, "p": 1.0}, "evaluation": {"every": 4}}
    found = _run(values)
    after_first, after_second = found["scores"][1:]
    assert list(found["curve"][1]["scores"].values()) == pytest.approx(after_first)
    assert list(found["curve"][1]["scores"].values()) == after_second


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"every": 0}, "evaluation.every:"),
        ({"every": -5}, "evaluation.every:"),
        ({"every": 5, "every_limit": 0}, "evaluation.every_limit:"),
        ({"every_limit": 5}, "evaluation.every_limit:"),
    ],
)
def test_steps_and_rows_are_positive(values: dict[str, Any], options: dict[str, int], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        make_config({**values, "evaluation": options})
