"""Knowing that a training ends while its last weights can still be changed, whoever ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf.hf_trainer.caller import caller
from sfa_hf.hf_trainer.checkpoint_seal import CheckpointSeal

_logger = logging.getLogger(__name__)

Finish = Callable[[TrainingArguments, TrainerState, TrainerControl], None]
"""Makes the weights of a training's last step what they are promised to be."""


class LastInLine(TrainerCallback):
    """Stands behind all other callbacks of a training and calls ``finish`` once one of them has stopped it.

    Any callback may set ``should_training_stop``, in any event, after ours was asked. What is saved from then
    on are finished weights; where the last step's checkpoint was saved before, it is saved again. With
    ``load_best_model_at_end``, a training that is stopped after its last step is left alone: it ends with the
    best checkpoint, as it was evaluated.

    Args:
        finish: called at most once per training.
    """

    def __init__(self, finish: Finish) -> None:
        self._finish, self._stepped, self._finished = finish, False, False
        self._handler = called.handler if (called := caller()) else None
        if self._handler is not None:
            callbacks = self._handler.callbacks
            for each in [each for each in callbacks if isinstance(each, LastInLine)]:
                if each._finish == finish:  # of a training that an exception ended
                    callbacks.remove(each)
            seals = (place for place, each in enumerate(callbacks) if isinstance(each, CheckpointSeal))
            callbacks.insert(next(seals, len(callbacks)), self)

    def finish(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Finish, unless that was done or this training took no step: it resumed from its own end."""
        if self._stepped and not self._finished:
            self._finished = True
            self._finish(args, state, control)

    def leave(self) -> None:
        """Leave the line: the training has ended, or another one begins."""
        if self._handler is not None and self in self._handler.callbacks:
            self._handler.callbacks.remove(self)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._stepped = True
        if control.should_training_stop:
            self.finish(args, state, control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if control.should_training_stop and not args.load_best_model_at_end:
            self.finish(args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._finished or not control.should_training_stop or args.load_best_model_at_end:
            return
        self.finish(args, state, control)
        called = caller()
        if called is None or called.trainer is None:
            _logger.warning(
                "training was stopped after checkpoint-%d was saved: it holds the weights before the end",
                state.global_step,
            )
        else:
            called.trainer._save_checkpoint(called.trainer.model, trial=called.trial)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if control.should_training_stop and not args.load_best_model_at_end:
            self.finish(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Also called by who made this, first: the weights are saved by the user from now on."""
        if not (args.load_best_model_at_end and state.best_model_checkpoint):
            self.finish(args, state, control)
        self.leave()
