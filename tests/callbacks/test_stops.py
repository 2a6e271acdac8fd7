"""Whoever stops a training, and however it ends: what is saved last is merged, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from sfa_hf import EMACallback, L2Callback, SFACallback
from tests.tiny_training import Watch, arguments, rows, tiny_model, train, weights

EACH_EPOCH: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "max_steps": 48,  # of 16 an epoch
}


class StopIn(TrainerCallback):
    """Stops in one event of one step."""

    def __init__(self, event: str, step: int) -> None:
        setattr(self, event, self.stop)
        self.step = step

    def stop(self, args, state, control, **kwargs) -> None:
        if state.global_step >= self.step:
            control.should_training_stop = True


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(found[name], weight) for name, weight in expected.items())


def saved(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


LATE = ("on_evaluate", "on_save", "on_step_end", "on_log")
STOPS = [("on_evaluate", True), *((event, False) for event in LATE)]


@pytest.mark.parametrize(("event", "before_ours"), STOPS)
def test_with_evaluation_per_epoch_the_last_weights_are_merged_before_they_are_saved(
    tmp_path: Path, event: str, before_ours: bool
) -> None:
    start, stop = weights(tiny_model()), StopIn(event, 16)
    ours = SFACallback(beta=1.0, p=1.0)
    trainer = train(tmp_path, [stop, ours] if before_ours else [ours, stop], **EACH_EPOCH, logging_steps=16)
    assert trainer.state.global_step == 16
    assert equal(weights(trainer.model), start)
    assert equal(saved(tmp_path, 16), start)
    assert [row["step"] for row in trainer.state.log_history if "sfa/merge" in row] == [16]


def test_an_epoch_s_end_that_stops_is_evaluated_merged(tmp_path: Path) -> None:
    trainer = train(tmp_path, [SFACallback(beta=1.0, p=1.0), StopIn("on_epoch_end", 16)], **EACH_EPOCH)
    assert equal(saved(tmp_path, 16), weights(tiny_model()))
    (evaluated,) = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    assert evaluated == trainer.evaluate()["eval_loss"]


def test_early_stopping_per_epoch_deploys_the_moving_average(tmp_path: Path) -> None:
    options = {**EACH_EPOCH, "load_best_model_at_end": False, "metric_for_best_model": "loss"}
    patience = EarlyStoppingCallback(1, early_stopping_threshold=1e9)
    watch = Watch()
    trainer = train(tmp_path, [watch, EMACallback(0.9), patience], **options)
    last = trainer.state.global_step
    assert last == 32
    average = {name: weight.double() for name, weight in watch.at[0].items()}
    for step in range(1, last + 1):
        average = {name: 0.9 * average[name] + 0.1 * watch.at[step][name].double() for name in average}
    for found in (weights(trainer.model), saved(tmp_path, last)):
        for name, weight in average.items():
            torch.testing.assert_close(found[name].double(), weight, rtol=1e-5, atol=1e-7)


def test_the_best_checkpoint_is_the_end_of_a_training_that_is_stopped_late(tmp_path: Path) -> None:
    options = {**EACH_EPOCH, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    trainer = train(tmp_path, [SFACallback(1.0, 1.0), StopIn("on_evaluate", 32)], **options)
    best = trainer.state.best_global_step
    assert equal(weights(trainer.model), saved(tmp_path, best))
    assert not equal(saved(tmp_path, best), weights(tiny_model()))


def test_resuming_a_finished_training_merges_nothing_again(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 16, "max_steps": 16}  # an epoch
    trainer = train(tmp_path, [SFACallback(0.5, 1.0)], **options)
    end = str(tmp_path / "checkpoint-16")
    again = train(tmp_path, [SFACallback(0.5, 1.0)], **options, resume_from_checkpoint=end)
    assert equal(weights(again.model), weights(trainer.model))


class InterruptedTrainingError(Exception):
    pass


class InterruptAt(TrainerCallback):
    """Ends train() by an exception, after a backward has been done with hooks in place."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            raise InterruptedTrainingError


def test_an_interrupted_training_leaves_no_penalty_behind(tmp_path: Path) -> None:
    model, untouched = tiny_model(), tiny_model()
    for _ in range(3):
        with pytest.raises(InterruptedTrainingError):
            train(tmp_path, [L2Callback(100.0), InterruptAt(2)], model=model)
    untouched.load_state_dict(model.state_dict())
    train(tmp_path, [], model=model)
    train(tmp_path, [], model=untouched)
    assert equal(weights(model), weights(untouched))


def test_the_same_callback_after_an_interrupt_is_added_once_and_starts_anew(tmp_path: Path) -> None:
    model, untouched, callback = tiny_model(), tiny_model(), L2Callback(10.0)
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path, [callback, InterruptAt(2)], model=model)
    untouched.load_state_dict(model.state_dict())
    train(tmp_path, [callback], model=model)
    train(tmp_path, [L2Callback(10.0)], model=untouched)
    assert equal(weights(model), weights(untouched))


class OutOfMemoryAt(TrainerCallback):
    """What accelerate takes for a GPU that is full, once."""

    def __init__(self, step: int) -> None:
        self.step, self.raised = step, False

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step and not self.raised:
            self.raised = True
            raise RuntimeError("CUDA out of memory.")


def test_a_smaller_batch_size_found_on_the_way_keeps_what_train_was_called_with(tmp_path: Path) -> None:
    start = weights(tiny_model())
    full = OutOfMemoryAt(5)
    trainer = train(tmp_path, [SFACallback(beta=1.0, p=1.0), full], auto_find_batch_size=True)
    assert full.raised
    assert equal(weights(trainer.model), start)


@pytest.mark.slow
def test_a_smaller_batch_size_found_on_the_way_keeps_the_moving_average(tmp_path: Path) -> None:
    """It begins with the weights that train() was called with, and is deployed and logged once."""
    callbacks = [EMACallback(1.0), OutOfMemoryAt(3)]
    trainer = train(tmp_path, callbacks, auto_find_batch_size=True, max_steps=4)
    assert equal(weights(trainer.model), weights(tiny_model()))
    assert len([row for row in trainer.state.log_history if "ema/distance" in row]) == 1


@pytest.mark.slow
def test_a_smaller_batch_size_found_on_the_way_is_penalised_once(tmp_path: Path) -> None:
    drifts = []

    class Drift(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs) -> None:
            drifts.append(logs["l2/drift"]) if "l2/drift" in logs else None

    model, start = tiny_model(), weights(tiny_model())
    added = []
    callback = L2Callback(1.0)
    original = callback._add_gradient
    callback._add_gradient = lambda engine: (added.append(1), original(engine))
    trainer = train(tmp_path, [callback, OutOfMemoryAt(5), Drift()], model=model, auto_find_batch_size=True)
    steps = trainer.state.global_step
    assert len(added) == 5 + steps
    squared = sum((weights(model)[name].double() - start[name].double()).square().sum() for name in start)
    assert drifts[-1] == pytest.approx(float(squared.sqrt()), rel=1e-6)


@pytest.mark.slow
def test_a_new_call_after_a_full_memory_takes_the_weights_it_was_called_with(tmp_path: Path) -> None:
    model, callback = tiny_model(), SFACallback(beta=1.0, p=1.0)
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path, [callback, InterruptAt(2)], model=model, auto_find_batch_size=True)
    moved = weights(model)
    trainer = Trainer(
        model,
        arguments(tmp_path, auto_find_batch_size=True, per_device_train_batch_size=2),
        train_dataset=rows(),
        callbacks=[callback],
    )
    trainer.train()
    assert equal(weights(model), moved)
    assert not equal(moved, weights(tiny_model()))


def test_a_moving_average_is_read_from_the_checkpoint_that_was_named(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 4}
    whole = train(tmp_path / "a", [EMACallback(0.5)], **options)
    train(tmp_path / "b", [EMACallback(0.5)], **options, learning_rate=0.5)
    resumed = train(
        tmp_path / "b",
        [EMACallback(0.5)],
        **options,
        resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"),
    )
    assert equal(weights(resumed.model), weights(whole.model))
