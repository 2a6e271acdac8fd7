"""Intervals, measures and displacements against values worked out by hand or by torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sfa_hf.comparison import displacement
from sfa_hf.comparison.displacement import displacements, distance
from sfa_hf.comparison.intervals import paired_difference, t_interval
from sfa_hf.comparison.measures import measures
from sfa_hf.errors import ConfigError


def test_the_interval_is_students() -> None:
    """By hand: mean 2, s = 1, t_{0.975, 2} = 4.302653 (table), half = 4.302653 / sqrt(3)."""
    found = t_interval({0: 1.0, 1: 2.0, 2: 3.0})
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert (t_interval({5: 1.0}).low, t_interval({5: 1.0}).mean) == (None, 1.0)


def test_differences_are_paired_by_seed() -> None:
    found = paired_difference({0: 1.0, 1: 11.0, 7: 5.0}, {0: 0.0, 1: 9.0, 3: 5.0})
    assert found is not None
    assert found.values == {0: 1.0, 1: 2.0}
    assert found.high == pytest.approx(1.5 + 12.706205 * 0.5, abs=1e-5)  # t_{0.975, 1}, s / sqrt(2) = 0.5
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def _results(name: str, scores: list[list[float]], **cost: float) -> dict[str, Any]:
    summary = {"learning_accuracy": 0.8, "forgetting": 0.6, "backward_transfer": -0.6}
    method = {"name": name}
    return {"method": method, "tasks": ["a", "b"], "scores": scores, "summary": summary, "cost": cost}


def test_measures_of_two_tasks_by_hand() -> None:
    run = _results("sfa", [[0.1, 0.2], [0.9, 0.2], [0.3, 0.7]], train_seconds=5.0)
    single = _results("single_task", [[0.1, 0.2], [0.9, 0.0], [0.0, 0.8]])
    joint = _results("joint", [[0.1, 0.2], [0.85, 0.9], [0.85, 0.9]])
    found = measures(run, single, joint)
    assert found["average"] == pytest.approx(0.5)
    assert (found["past"], found["new"]) == (0.3, 0.7)
    assert found["retention"] == pytest.approx((0.3 - 0.1) / (0.9 - 0.1))
    assert found["intransigence"] == pytest.approx(((0.85 - 0.9) + (0.9 - 0.7)) / 2)
    assert measures(run, single, None)["intransigence"] == pytest.approx(((0.9 - 0.9) + (0.8 - 0.7)) / 2)
    assert "extra_bytes" not in found
    alone = measures(single, single, None)
    assert (alone["final.a"], alone["final.b"], alone["average"]) == (0.9, 0.8, pytest.approx(0.85))
    assert "forgetting" not in alone


def test_one_task_has_no_past() -> None:
    run = {**_results("sfa", [[0.1], [0.9]]), "tasks": ["a"], "summary": {"learning_accuracy": 0.9}}
    run["summary"] |= {"forgetting": None, "backward_transfer": None}
    assert not {"past", "forgetting"} & measures(run, None, None).keys()


def _model(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_displacement_is_torchs_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displacement, "_BLOCK", 7)
    torch.manual_seed(0)
    models = [
        {"w": torch.randn(13, 5), "b": torch.randn(9).bfloat16(), "i": torch.arange(3), "e": torch.randn(0)}
        for _ in range(2)
    ]
    paths = [_model(tmp_path / f"{k}-{task}" / "model", models[k]) for k, task in enumerate("xy")]
    floats = [torch.cat([m["w"].double().flatten(), m["b"].double()]) for m in models]
    expected = (floats[1] - floats[0]).norm().item()
    assert distance(*paths) == pytest.approx(expected, rel=1e-14)
    assert displacements(tmp_path, ["x", "y"]) == [distance(*paths)]
    for path in paths:
        (path / "model.safetensors").unlink()
    assert displacements(tmp_path, ["x", "y"]) == [pytest.approx(expected)]  # kept beside the run


def test_models_of_other_shapes_have_no_distance(tmp_path: Path) -> None:
    first = _model(tmp_path / "0-x" / "model", {"w": torch.zeros(2)})
    second = _model(tmp_path / "1-y" / "model", {"w": torch.zeros(3)})
    with pytest.raises(ConfigError, match="w is not the same tensor"):
        distance(first, second)
    assert displacements(tmp_path, ["x", "y"]) is None
