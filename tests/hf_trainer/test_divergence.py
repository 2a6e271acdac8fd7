"""A training that diverges ends at that step, saves no NaN, and can be continued from its last checkpoint."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from sfa_hf import EMACallback, L2Callback, SFACallback
from sfa_hf.errors import Diverged
from sfa_hf.hf_trainer.divergence import SKIPPED_AT_THE_END, SKIPPED_IN_A_ROW, DivergenceWatch
from tests.tiny_training import arguments, tiny_model, train, weights

AT = 4


class SpoilGradients(TrainerCallback):
    """Makes gradients NaN or infinite in one step, as a bad batch does."""

    def __init__(self, value: float, name: str = "") -> None:
        self.value, self.name = value, name

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == AT:
            for name, parameter in model.named_parameters():
                if self.name in name:
                    parameter.grad.fill_(self.value)


def all_saved_are_finite(folder: Path) -> bool:
    files = list(folder.rglob("model.safetensors"))
    return all(bool(tensor.isfinite().all()) for file in files for tensor in load_file(file).values())


@pytest.mark.parametrize(
    ("callback", "value"),
    [(partial(SFACallback, merge_every=3), math.inf), (L2Callback, math.nan), (EMACallback, math.nan)],
)
def test_it_ends_at_that_step_and_goes_on_from_the_last_checkpoint(
    tmp_path: Path, callback: Any, value: float
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 100}
    with pytest.raises(Diverged, match=f"training diverged at step {AT}: weights are NaN or infinite"):
        train(tmp_path / "run", [callback(), SpoilGradients(value)], **settings)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert all_saved_are_finite(tmp_path / "run")
    again = train(tmp_path / "run", [callback()], resume_from_checkpoint=True, **settings)
    whole = train(tmp_path / "whole", [callback()], **settings)
    assert all(torch.equal(weights(whole.model)[name], w) for name, w in weights(again.model).items())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("embed_tokens", {"save_strategy": "steps", "save_steps": AT}),
        (
            "embed_tokens",
            {"save_strategy": "epoch", "per_device_train_batch_size": 16},
        ),
        ("embed_tokens", {"eval_strategy": "steps", "eval_steps": AT}),
        ("embed_tokens", {"max_steps": AT}),
        ("", {"logging_steps": 100}),
    ],
)
def test_one_parameter_is_enough_before_weights_are_used(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    callbacks = [DivergenceWatch(), SpoilGradients(math.nan, name)]
    with pytest.raises(Diverged, match=rf"at step {AT}: .*embed_tokens"):
        train(tmp_path, callbacks, max_grad_norm=0.0, **settings)
    assert all_saved_are_finite(tmp_path)


def test_a_merge_of_nan_ends_the_training(tmp_path: Path) -> None:
    callbacks = [
        SFACallback(merge_every=AT, include="embed_tokens"),
        SpoilGradients(math.nan, "embed_tokens"),
    ]
    with pytest.raises(Diverged, match=f"at step {AT}: the distance to theta_o is nan"):
        train(tmp_path, callbacks, max_grad_norm=0.0)


@pytest.mark.parametrize(
    ("fp16", "skipped", "last", "problem"),
    [
        *((fp16, [*[True] * (most - 1), False] * 2, False, None) for fp16, most in SKIPPED_IN_A_ROW.items()),
        *(
            (fp16, [False, *[True] * most], False, f"the last {most} steps were")
            for fp16, most in SKIPPED_IN_A_ROW.items()
        ),
        (True, [False, *[True] * (SKIPPED_AT_THE_END[True] - 1)], True, None),
        (True, [False, *[True] * SKIPPED_AT_THE_END[True]], True, "the last 3 steps were"),
        (True, [True], True, "this step were"),
        (True, [True, False], True, None),
        (False, [False] * 9, True, None),
        (False, [False, True], True, "this step were"),
        (False, [False, True, False], True, None),
    ],
)
def test_a_training_that_skips_its_steps_ends(
    tmp_path: Path, fp16: bool, skipped: list[bool], last: bool, problem: str | None
) -> None:
    """``last``: the training ends with the steps."""
    watch, state, control = DivergenceWatch(), TrainerState(), TrainerControl()
    watch.on_train_begin(arguments(tmp_path, fp16=fp16), state, control, model=tiny_model())
    with pytest.raises(Diverged, match=problem) if problem else nullcontext():
        for number, each in enumerate(skipped, 1):
            optimizer = SimpleNamespace(step_was_skipped=each)
            watch.on_optimizer_step(None, state, control, optimizer=optimizer)
            state.global_step = number
            control.should_training_stop = last and number == len(skipped)
            watch.on_step_end(None, state, control)
    if problem:
        assert state.global_step >= len(skipped) - 1


def test_saved_statistics_are_weights_too(tmp_path: Path) -> None:
    class WithStatistics(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_model()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("mask", torch.full((3,), -math.inf))

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
            self.mean += math.nan
            return self.inner(input_ids=input_ids, labels=labels)

    with pytest.raises(Diverged, match=r"at step 8: weights are NaN or infinite \(mean\)"):
        train(tmp_path, [DivergenceWatch()], model=WithStatistics())
