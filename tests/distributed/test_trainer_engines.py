"""What holds on one process holds on sharded engines: stops, exceptions, refusals and whole checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from trainer_rows import ENGINES, STEPS_OF_AN_EPOCH, assert_all_hold, train, whole
from transformers import EarlyStoppingCallback, TrainerCallback

from sfa_hf import EMACallback, L2Callback, SFACallback
from tests.callbacks.test_stops import InterruptAt, InterruptedTrainingError, OutOfMemoryAt, StopIn
from tests.tiny_training import tiny_model, worst_ulp

EPOCH = STEPS_OF_AN_EPOCH
EACH_EPOCH: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch", "max_steps": 3 * EPOCH}
EACH_2: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


class Whole(TrainerCallback):
    """Keeps the whole weights of the start and of each step's end."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = whole(model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = whole(model)


class WholeAfter(Whole):
    """One of two: the Trainer warns of two callbacks of the same class."""


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    return [name for name, weight in expected.items() if not torch.equal(found[name], weight)]


def saved(folder: Path, step: int) -> dict[str, Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def merges_are_exact_saved_and_resumed(engine: str, folder: Path) -> None:
    before, after = Whole(), WholeAfter()
    train(engine, folder, [before, SFACallback(0.3, merge_every=2), after], **EACH_2)
    for step in (2, 4):
        for name, start in before.at[0].items():
            assert worst_ulp(before.at[step][name], start, after.at[step][name], 0.3) <= 1, (step, name)
        assert differing(saved(folder, step), after.at[step]) == []
    assert differing(before.at[2], after.at[2])
    resumed = Whole()
    at_2 = str(folder / "checkpoint-2")
    callbacks = [SFACallback(0.3, merge_every=2), resumed]
    train(engine, folder, callbacks, tiny_model(1), resume_from_checkpoint=at_2, **EACH_2)
    assert differing(resumed.at[2], after.at[2]) == []
    assert differing(resumed.at[4], after.at[4]) == []


def whoever_stops_it_the_last_weights_are_merged(engine: str, folder: Path) -> None:
    start = weights(tiny_model())
    stops = [("on_evaluate", True), ("on_evaluate", False), ("on_save", False), ("on_step_end", False)]
    for event, before_ours in stops:
        stop, ours = StopIn(event, EPOCH), SFACallback(beta=1.0, p=1.0)
        where = folder / f"{event}-{before_ours}"
        trainer = train(engine, where, [stop, ours] if before_ours else [ours, stop], **EACH_EPOCH)
        assert trainer.state.global_step == EPOCH
        assert differing(whole(trainer.model), start) == []
        assert differing(saved(where, EPOCH), start) == []
        assert [row["step"] for row in trainer.state.log_history if "sfa/merge" in row] == [EPOCH]


def a_moving_average_is_deployed_when_it_is_stopped(engine: str, folder: Path) -> None:
    options = {**EACH_EPOCH, "load_best_model_at_end": False, "metric_for_best_model": "loss"}
    patience, watch = EarlyStoppingCallback(1, early_stopping_threshold=1e9), Whole()
    trainer = train(engine, folder, [watch, EMACallback(0.9), patience], **options)
    last = trainer.state.global_step
    assert last == 2 * EPOCH
    average = {name: weight.double() for name, weight in watch.at[0].items()}
    for step in range(1, last + 1):
        average = {name: 0.9 * average[name] + 0.1 * watch.at[step][name].double() for name in average}
    for found in (whole(trainer.model), saved(folder, last)):
        for name, weight in average.items():
            torch.testing.assert_close(found[name].double(), weight, rtol=1e-5, atol=1e-7)


def the_best_checkpoint_is_the_end(engine: str, folder: Path) -> None:
    options = {**EACH_EPOCH, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    trainer = train(engine, folder, [SFACallback(1.0, 1.0), StopIn("on_evaluate", 2 * EPOCH)], **options)
    found = whole(trainer.model)
    assert differing(found, saved(folder, trainer.state.best_global_step)) == []
    assert differing(found, weights(tiny_model()))


def a_full_memory_changes_no_anchor(engine: str, folder: Path) -> None:
    if engine == "zero3":
        return  # transformers refuses auto_find_batch_size there
    full = OutOfMemoryAt(3)
    trainer = train(engine, folder, [SFACallback(beta=1.0, p=1.0), full], auto_find_batch_size=True)
    assert full.raised
    assert differing(whole(trainer.model), weights(tiny_model())) == []


def an_exception_leaves_nothing_behind(engine: str, folder: Path) -> None:
    # accelerate finds no layers to wrap in a model that it has wrapped.
    options = {"fsdp_config": {"version": 2, "auto_wrap_policy": "NO_WRAP"}} if engine == "fsdp2" else {}
    model, untouched = tiny_model(), tiny_model()
    with pytest.raises(InterruptedTrainingError):
        train(engine, folder, [L2Callback(100.0), InterruptAt(2)], model=model, **options)
    untouched.load_state_dict(whole(model))
    trainer = train(engine, folder, [], model=model, **options)
    expected = train(engine, folder, [], model=untouched, **options)
    assert differing(whole(trainer.model), whole(expected.model)) == []


TABLE = (
    merges_are_exact_saved_and_resumed,
    whoever_stops_it_the_last_weights_are_merged,
    a_moving_average_is_deployed_when_it_is_stopped,
    the_best_checkpoint_is_the_end,
    a_full_memory_changes_no_anchor,
    an_exception_leaves_nothing_behind,
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_trainer_on_two_processes(engine: str, tmp_path: Path) -> None:
    assert_all_hold(TABLE, engine, tmp_path)


def test_fsdp2_merges_saves_and_resumes(tmp_path: Path) -> None:
    rows = (merges_are_exact_saved_and_resumed, a_moving_average_is_deployed_when_it_is_stopped)
    assert_all_hold(rows, "fsdp2", tmp_path)
