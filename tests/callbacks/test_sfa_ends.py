"""What is saved when a training ends: at its last step, stopped early, or with its best checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from sfa_hf import SFACallback
from tests.tiny_training import Watch, tiny_model, train, weights

EACH_STEP: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
}


class StopAt(TrainerCallback):
    """Stops as EarlyStoppingCallback does: when the evaluation of a step has been seen."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = state.global_step >= self.step


def merged_steps(trainer: Trainer) -> list[int]:
    return [row["step"] for row in trainer.state.log_history if "sfa/merge" in row]


def saved(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("save_total_limit", [None, 1])
def test_the_best_checkpoint_is_loaded_as_it_was_saved(tmp_path: Path, save_total_limit: int | None) -> None:
    options = {"load_best_model_at_end": True, "save_total_limit": save_total_limit, "learning_rate": 0.3}
    watch = Watch()
    trainer = train(tmp_path, [SFACallback(), watch], **EACH_STEP, **options)
    best = trainer.state.best_global_step
    assert best is not None
    assert_equal(weights(trainer.model), saved(tmp_path, best))
    assert_equal(watch.at[best], saved(tmp_path, best))  # merged at a merge step, plain at any other
    assert merged_steps(trainer) == [2, 4, 6, 8]


@pytest.mark.parametrize(("stop", "steps"), [(4, [2, 4]), (5, [2, 4, 5])])
def test_a_step_that_stops_the_training_is_merged_once(tmp_path: Path, stop: int, steps: list[int]) -> None:
    start = tiny_model()
    trainer = train(tmp_path, [SFACallback(0.5), StopAt(stop)], **EACH_STEP)
    assert merged_steps(trainer) == steps
    assert trainer.state.global_step == stop
    assert_equal(weights(trainer.model), saved(tmp_path, stop))
    if stop == 5:
        longer = train(tmp_path / "longer", [SFACallback(0.5)], save_strategy="steps", save_steps=5)
        for name, weight in weights(trainer.model).items():
            middle = (saved(tmp_path / "longer", 5)[name].double() + weights(start)[name].double()) / 2
            torch.testing.assert_close(weight.double(), middle, rtol=1e-6, atol=1e-8)
        assert merged_steps(longer) == [2, 4, 6, 8]


def test_stopped_early_the_best_checkpoint_still_wins(tmp_path: Path) -> None:
    options = {"load_best_model_at_end": True, "learning_rate": 0.3}
    trainer = train(tmp_path, [SFACallback(), StopAt(5)], **EACH_STEP, **options)
    best = trainer.state.best_global_step
    assert best is not None
    assert_equal(weights(trainer.model), saved(tmp_path, best))
