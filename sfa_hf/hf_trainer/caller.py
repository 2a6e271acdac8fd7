"""The Trainer that calls a callback's event now, and what it was told.

A callback is handed the model and the optimizer, but neither the Trainer, nor the handler that reaches the
reporting integrations, nor the checkpoint that the training resumes from. transformers (5.23) has no public
way to them; all of them are on the call stack while the event is handled.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerState
from transformers.trainer_callback import CallbackHandler


@dataclass(frozen=True)
class Caller:
    """Who calls an event.

    Attributes:
        handler: calls the events of all callbacks.
        trainer: whose handler it is; None where another program calls the handler.
        run_dir: where this training's checkpoints go: ``output_dir``, or a trial's folder in it.
        trial: of a hyperparameter search.
        resumes_from: the checkpoint that ``train()`` was told to resume from; None for none.
        train_call: the call of ``train()``: one call may begin several times, with ``auto_find_batch_size``.
    """

    handler: CallbackHandler
    trainer: Trainer | None = None
    run_dir: Path | None = None
    trial: Any = None
    resumes_from: Path | None = None
    train_call: FrameType | None = None


def caller() -> Caller | None:
    """Find who calls the event that is being handled; None outside any."""
    frames = list(_frames_above(inspect.currentframe()))
    events = (frame for frame in frames if frame.f_code is CallbackHandler.call_event.__code__)
    event = next(events, None)
    if event is None:
        return None
    handler = event.f_locals["self"]
    above = frames[frames.index(event) :]
    held = [frame.f_locals for frame in above]
    own = [each for each in held if getattr(each.get("self"), "callback_handler", None) is handler]
    if not own or not isinstance(own[0]["self"], Trainer):
        return Caller(handler)
    trainer: Trainer = own[0]["self"]
    trial = next((each["trial"] for each in own if "trial" in each), None)
    resumed = next((each["resume_from_checkpoint"] for each in own if "resume_from_checkpoint" in each), None)
    train_call = next((frame for frame in above if frame.f_code is Trainer.train.__code__), None)
    return Caller(
        handler,
        trainer,
        Path(trainer._get_output_dir(trial)),
        trial,
        Path(resumed) if isinstance(resumed, str) else None,
        train_call,
    )


def is_training(state: TrainerState) -> bool:
    """Whether a Trainer is inside the training that this state belongs to, on any thread of this process.

    A training that ended by an exception told no callback. Its hooks find out by this.
    """
    for top in sys._current_frames().values():
        for frame in _frames_above(top):
            owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
            if isinstance(owner, Trainer) and owner.state is state:
                return True
    return False


def _frames_above(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
