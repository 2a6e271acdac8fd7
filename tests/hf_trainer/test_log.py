"""A callback whose events no Trainer calls still tells the history, and says that it tells nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import arguments, tiny_model
from transformers import TrainerControl, TrainerState

from sfa_hf import SFACallback


def test_events_called_by_hand_log_to_the_history_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, args = tiny_model(), arguments(tmp_path)
    state, control, callback = TrainerState(max_steps=1), TrainerControl(should_log=True), SFACallback()
    things = {"model": model, "optimizer": torch.optim.SGD(model.parameters())}
    callback.on_train_begin(args, state, control, **things)
    state.global_step = 1
    callback.on_step_end(args, state, control, **things)
    assert [(entry["step"], entry["sfa/merge"]) for entry in state.log_history] == [(1, 1)]
    assert control.should_log
    assert sum("no transformers Trainer is calling" in record.message for record in caplog.records) == 1
