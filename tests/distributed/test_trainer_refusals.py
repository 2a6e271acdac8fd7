"""What a sharded training cannot go well with is refused by all processes together, in the same words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from harness import gloo
from safetensors.torch import save_file
from test_trainer_engines import Whole, differing
from torch import Tensor, nn
from trainer_rows import ENGINES, assert_all_hold, train, whole
from transformers import PreTrainedModel, TrainerCallback

from sfa_hf import EMACallback, L2Callback, SFACallback
from sfa_hf.config.cli import guard
from sfa_hf.distributed.processes import everyones, from_every_process
from sfa_hf.errors import ConfigError
from tests.engines.test_optimizer_conduct import Lookahead, Masters, StepsInBackward
from tests.launches import launch
from tests.tiny_training import tiny_model

INFINITE = float("inf")


def refusal(engine: str, folder: Path, callbacks: list[TrainerCallback], *args: Any, **changes: Any) -> str:
    """The line of a refusal, which is the same on all processes."""
    with pytest.raises((ConfigError, NotImplementedError)) as stop:
        train(engine, folder, callbacks, *args, **changes)
    assert len(set(everyones(str(stop.value)))) == 1, everyones(str(stop.value))
    return str(stop.value)


def not_finite() -> PreTrainedModel:
    """With a NaN in what the last process alone keeps."""
    model = tiny_model()
    model.lm_head.weight.data[-1, -1] = float("nan")
    return model


def save(folder: Path, state: dict[str, Tensor]) -> Path:
    """Save a tiny model's weights, from the first process."""
    if os.environ["RANK"] == "0":
        tiny_model().config.save_pretrained(folder)
        save_file(state, folder / "model.safetensors")
    PartialState().wait_for_everyone()
    return folder


def values_that_are_not_finite(engine: str, folder: Path) -> None:
    for callback in (SFACallback, EMACallback, L2Callback):
        line = refusal(engine, folder, [callback()], not_finite())
        assert line.startswith("model: 1 values are NaN or infinite (lm_head.weight)"), line
    anchor = save(folder / "anchor", not_finite().state_dict())
    line = refusal(engine, folder, [SFACallback(anchor=anchor)])
    assert line.startswith("anchor: 1 values are NaN or infinite (lm_head.weight)"), line


def arguments_that_are_not_finite(engine: str, folder: Path) -> None:
    for callback in (SFACallback, EMACallback):
        line = refusal(engine, folder, [callback()], learning_rate=INFINITE)
        assert "learning_rate: is inf" in line
    optimizer = (torch.optim.AdamW, {"lr": 1e-2, "eps": INFINITE})
    line = refusal(engine, folder, [SFACallback()], optimizer_cls_and_kwargs=optimizer)
    assert "optimizer's eps: is inf" in line


class Change(TrainerCallback):
    """Changes the model at the end of a step."""

    def __init__(self, change: Callable[[Any], Any], step: int = 2) -> None:
        self.change, self.step = change, step

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == self.step:
            self.change(model)


def parameters_that_change(engine: str, folder: Path) -> None:
    def unfrozen(model: PreTrainedModel) -> None:
        model.lm_head.weight.requires_grad_(True)

    def added(model: PreTrainedModel) -> None:
        model.extra = nn.Parameter(torch.zeros(2, 2))

    def resized(model: PreTrainedModel) -> None:
        model.lm_head = nn.Linear(24, 80, bias=False)

    for callback in (SFACallback, EMACallback):
        model = tiny_model()
        model.lm_head.weight.requires_grad_(False)
        line = refusal(engine, folder, [callback(), Change(unfrozen)], model)
        assert "lm_head.weight changed before step 3" in line
    assert "extra changed before step 3" in refusal(engine, folder, [SFACallback(), Change(added)])
    assert "lm_head.weight changed before step 3" in refusal(engine, folder, [SFACallback(), Change(resized)])


def an_anchor_that_lacks_a_weight(engine: str, folder: Path) -> None:
    state = tiny_model().state_dict()
    del state["lm_head.weight"]
    anchor = save(folder / "anchor", state)
    line = refusal(engine, folder, [SFACallback(anchor=anchor)])
    assert "has no tensor lm_head.weight" in line


def what_one_process_alone_cannot_do(engine: str, folder: Path) -> None:
    """An anchor's folder, or room for it, that one host lacks."""
    save(folder / "anchor-0", tiny_model().state_dict())
    own = folder / f"anchor-{os.environ['RANK']}"
    line = refusal(engine, folder, [SFACallback(anchor=own)])
    assert line.startswith(f"anchor: {folder}/anchor-1"), line
    if os.environ["RANK"] == "1":
        own.write_text("")  # a file, in which no folder can be
    line = refusal(engine, own, [SFACallback(anchor_device="disk")])
    assert line.startswith("anchor_device: "), line


def optimizers_that_undo_edits(engine: str, folder: Path) -> None:
    for kind in (Masters, _Lookahead):
        line = refusal(engine, folder, [SFACallback()], optimizer_cls_and_kwargs=(kind, {"lr": 1e-2}))
        assert kind.__qualname__ in line
        assert "supported: " in line
    options = {"optimizer_cls_and_kwargs": (StepsInBackward, {"lr": 1e-2}), "max_grad_norm": 0.0}
    assert "StepsInBackward" in refusal(engine, folder, [L2Callback(0.1)], **options)


class _Lookahead(Lookahead):
    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(torch.optim.AdamW(parameters, lr))


class Moments(Whole):
    """Keeps the optimizer's state on this process at each step's end."""

    def __init__(self) -> None:
        self.state: list[dict[str, Tensor]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        pass

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        self.state = [
            {key: _local(value) for key, value in kept.items() if key != "step"}
            for kept in optimizer.state.values()
        ]


class MomentsAfter(Moments):
    """One of two."""


def _local(value: Any) -> Tensor:
    return (value.to_local() if hasattr(value, "to_local") else value).detach().clone()


def moments_are_treated_whole_or_not_at_all(engine: str, folder: Path) -> None:
    adams = [
        (torch.optim.AdamW, {"lr": 1e-2, "amsgrad": True}, {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (torch.optim.Adamax, {"lr": 1e-2}, {"exp_avg", "exp_inf"}),
    ]
    for treat, factor in (("reset", 0.0), ("scale", 0.5)):
        for kind, given, names in adams:
            before, after = Moments(), MomentsAfter()
            merged = SFACallback(0.5, 1.0, optimizer_state=treat)
            options = {"optimizer_cls_and_kwargs": (kind, given), "max_steps": 2}
            train(engine, folder, [before, merged, after], **options)
            assert before.state
            for then, now in zip(before.state, after.state, strict=True):
                assert names <= set(now), set(now)
                for name, value in now.items():
                    assert torch.equal(value, factor * then[name]), name
    options = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9})}
    line = refusal(engine, folder, [SFACallback(optimizer_state="reset")], **options)
    assert "optimizer_state='reset'" in line


def buffers_are_left_alone(engine: str, folder: Path) -> None:
    model = tiny_model()
    model.model.register_buffer("running", torch.full((3,), float(os.environ["RANK"])))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = train(engine, folder, [SFACallback(1.0, 1.0)], model, max_steps=2)
    assert differing(whole(trainer.model), start) == []


TABLE = (
    values_that_are_not_finite,
    arguments_that_are_not_finite,
    parameters_that_change,
    an_anchor_that_lacks_a_weight,
    what_one_process_alone_cannot_do,
    optimizers_that_undo_edits,
    moments_are_treated_whole_or_not_at_all,
    buffers_are_left_alone,
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_refused_by_all_processes_together(engine: str, tmp_path: Path) -> None:
    assert_all_hold(TABLE, engine, tmp_path)


def test_what_only_one_process_sees_is_refused_by_all(tmp_path: Path) -> None:
    rows = (an_anchor_that_lacks_a_weight, what_one_process_alone_cannot_do)
    assert_all_hold(rows, "zero2", tmp_path)


def refuse_on_the_last() -> None:
    """A command that only the last process cannot carry out."""

    def make() -> None:
        if os.environ["RANK"] == "1":
            raise ConfigError("anchor", "is not on this host", "a folder that all hosts see")

    def call() -> None:
        with gloo():
            from_every_process(make)

    guard(call)


def test_the_line_of_the_last_process_is_printed_once_and_all_end_with_2(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = launch(f"{__name__}:refuse_on_the_last", {}, [log, log], seconds=60, together=False)
    assert ended.codes == [2, 2]
    lines = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert lines == ["error: anchor: is not on this host (a folder that all hosts see)"]
