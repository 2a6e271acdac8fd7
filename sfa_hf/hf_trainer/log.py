"""Logging from a callback as ``Trainer.log`` does, so that every ``report_to`` integration receives it.

A callback cannot log through the Trainer: ``Trainer.log`` calls the callback handler, which calls the
reporting integrations, and a callback gets neither object. The handler calls the events of a callback, so it
is found on the call stack. Calling ``Trainer.log`` would be wrong: subclasses override it to flush their own
running means, which a merge must not change.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

_logger = logging.getLogger(__name__)


class TrainerLog:
    """Logs to ``state.log_history`` and to every callback of the handler that is calling now.

    Create it inside an event of a callback.
    """

    def __init__(self) -> None:
        self._handler = _calling_handler()
        if self._handler is None:
            _logger.warning("no transformers Trainer is calling: merges are logged only to state.log_history")

    def write(
        self,
        values: Mapping[str, float],
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
    ) -> None:
        """Log ``values`` at the current step; ``control.should_log`` does not change."""
        logs = dict(values)
        if state.epoch is not None:
            logs["epoch"] = state.epoch
        state.log_history.append({**logs, "step": state.global_step})
        if self._handler is not None:
            should_log = control.should_log
            self._handler.on_log(args, state, control, logs)
            control.should_log = should_log


def _calling_handler() -> CallbackHandler | None:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is CallbackHandler.call_event.__code__:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None
