"""EMA of the weights: its value in float64, what training and checkpoints see of it, and a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from sfa_hf import EMACallback
from sfa_hf.errors import ConfigError
from tests.tiny_training import Watch, tiny_model, train, weights

DECAY = 0.7
CHECKPOINTS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}


def average(watch: Watch, steps: int) -> dict[str, Tensor]:
    """From theta_o, in float64."""
    found = {name: weight.double() for name, weight in watch.at[0].items()}
    for step in range(1, steps + 1):
        found = {name: DECAY * found[name] + (1 - DECAY) * w.double() for name, w in watch.at[step].items()}
    return found


@pytest.mark.parametrize("device", ["cpu", "device"])
def test_training_goes_on_untouched_and_ends_in_the_average(tmp_path: Path, device: str) -> None:
    plain, watch = Watch(), Watch()
    train(tmp_path / "plain", [plain])
    callback = EMACallback(DECAY, device=device)
    trainer = train(tmp_path, [watch, callback], eval_strategy="steps", eval_steps=8, **CHECKPOINTS)
    assert all(w.equal(plain.at[step][n]) for step in watch.at for n, w in watch.at[step].items())
    expected, found = average(watch, 8), weights(trainer.model)
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=0, atol=2e-7), name
    assert callback.nbytes == sum(4 * weight.numel() for weight in found.values())
    saved = load_file(tmp_path / "checkpoint-8" / "model.safetensors")
    assert all(saved[name].equal(weight) for name, weight in found.items())
    (record,) = [entry for entry in trainer.state.log_history if "ema/distance" in entry]
    distance = sum((watch.at[8][n].double() - value).square().sum() for n, value in expected.items()) ** 0.5
    assert (record["step"], record["ema/decay"]) == (8, DECAY)
    assert record["ema/distance"] == pytest.approx(distance.item(), rel=1e-5)


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    train(tmp_path, [EMACallback(0.1)], **CHECKPOINTS)  # a training whose checkpoints are replaced
    whole = train(tmp_path, [EMACallback(DECAY)], **CHECKPOINTS)
    checkpoint = tmp_path / "checkpoint-5"
    again = train(
        tmp_path, [EMACallback(DECAY)], tiny_model(1), resume_from_checkpoint=str(checkpoint), **CHECKPOINTS
    )
    expected = weights(whole.model)
    assert all(expected[name].equal(weight) for name, weight in weights(again.model).items())


def test_a_checkpoint_without_the_average_is_refused(tmp_path: Path) -> None:
    train(tmp_path, [], **CHECKPOINTS)
    with pytest.raises(ConfigError, match="does not hold all of"):
        train(tmp_path, [EMACallback()], resume_from_checkpoint=str(tmp_path / "checkpoint-5"), **CHECKPOINTS)


class StopAt(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == 3


def test_a_training_that_stops_early_ends_in_the_average(tmp_path: Path) -> None:
    watch = Watch()
    trainer = train(tmp_path, [watch, EMACallback(DECAY), StopAt()])
    found = weights(trainer.model)
    for name, value in average(watch, 3).items():
        assert torch.allclose(found[name].double(), value, rtol=0, atol=2e-7), name


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan"), "1"])
def test_a_decay_that_is_none_is_refused(decay: Any) -> None:
    with pytest.raises(ConfigError, match=r"decay: .* is not a fraction"):
        EMACallback(decay)
