"""EWC's and EMA's options as a config gives them, and a run of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sfa_hf import EMACallback, EWCCallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods import Stage, make_method
from sfa_hf.sequence import make_config, run_sequence
from tests.sequence.small_run import TASKS, small_base, small_data, small_values

FIRST = Stage(index=0, tasks=(), base="base", folder=Path("0-math"))
SECOND = Stage(index=1, tasks=(), base="base", folder=Path("1-law"), past=(FIRST,))
THIRD = Stage(index=2, tasks=(), base="base", folder=Path("2-code"), past=(FIRST, SECOND))


def test_ewc_holds_every_past_task() -> None:
    method = make_method({"name": "ewc", "lambda": 3, "mode": "separate"})
    assert method.callbacks(FIRST) == []
    (callback,) = method.callbacks(THIRD)
    assert isinstance(callback, EWCCallback)
    assert (callback.lambda_, callback.mode, callback.anchor) == (3.0, "separate", "1-law/model")
    assert callback.past == [("0-math/fisher", "0-math/model"), ("1-law/fisher", "1-law/model")]


def test_ema_averages_from_the_second_task_on() -> None:
    method = make_method({"name": "ema", "decay": 0.5, "average_device": "cpu"})
    assert method.callbacks(FIRST) == []
    (callback,) = method.callbacks(SECOND)
    assert isinstance(callback, EMACallback)
    assert (callback.decay, callback.device) == (0.5, "cpu")
    assert make_method({"name": "ema", "first_task": True}).callbacks(FIRST)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"name": "ewc", "lambda": float("inf")}, r"method\.lambda: inf is not the strength"),
        ({"name": "ewc", "decay": 2}, r"method\.decay: 2\.0 is not a fraction"),
        ({"name": "ewc", "mode": "separate", "decay": 0.5}, r"method\.decay: is 0\.5, and mode is separate"),
        ({"name": "ewc", "mode": "offline"}, r"method\.mode: unknown value 'offline'"),
        ({"name": "ewc", "fisher_rows": 0}, r"method\.fisher_rows: is 0"),
        ({"name": "ema", "decay": -1}, r"method\.decay: -1\.0 is not a fraction"),
    ],
)
def test_options_that_cannot_be_right(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        make_method(options)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base, data = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("data")
    values = small_values(small_base(base), small_data(data), tmp_path_factory.mktemp("runs"), 3)
    return {**values, "evaluation": {"limit": 2}}


def run(values: dict[str, Any], folder: Path, **method: Any) -> dict[str, Any]:
    config = make_config({**values, "method": method, "output_dir": str(folder)})
    return json.loads(run_sequence(config).read_text())


def test_more_fisher_rows_than_there_are(values: dict[str, Any], tmp_path: Path) -> None:
    line = rf"method\.fisher_rows: is 41, and task {TASKS[0]} has 40 rows \(at most 40, or all\)"
    with pytest.raises(ConfigError, match=line):
        run(values, tmp_path / "run", name="ewc", fisher_rows=41)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tasks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_of_ewc(values: dict[str, Any], tmp_path: Path, tasks: int) -> None:
    """Each task gets a Fisher before the next one is trained; the last needs none."""
    values = {**values, "sequence": values["sequence"][:tasks]}
    found = run(values, tmp_path, name="ewc", mode="separate", fisher_rows=4)
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/fisher/fisher.json"))]
    found_of = [(each["task"], each["rows"], each["of"]) for each in records]
    assert found_of == [(task, 4, 40) for task in TASKS[: tasks - 1]]
    model = load_file(tmp_path / f"0-{TASKS[0]}" / "model" / "model.safetensors")
    assert found["cost"]["extra_bytes"] == 3 * 4 * sum(w.numel() for w in model.values())


@pytest.mark.slow
def test_a_run_of_ema(values: dict[str, Any], tmp_path: Path) -> None:
    """With decay 1 the average is the start of the task: its model is the one before."""
    run(values, tmp_path, name="ema", decay=1)
    first, second = (
        load_file(tmp_path / f"{i}-{TASKS[i]}" / "model" / "model.safetensors") for i in range(2)
    )
    assert all(torch.equal(first[name], value) for name, value in second.items())
