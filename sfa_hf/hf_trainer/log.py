"""Logging from a callback as ``Trainer.log`` does, so that every ``report_to`` integration hears of it.

The Trainer hands its callbacks no way to log: ``Trainer.log`` tells its callback handler, which tells the
reporting integrations, and a callback gets neither object: see :mod:`sfa_hf.hf_trainer.caller`.
``Trainer.log`` itself would not do: subclasses override it to flush running means of their own, which a merge
must not disturb.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.hf_trainer.caller import caller

_logger = logging.getLogger(__name__)


class TrainerLog:
    """Logs to ``state.log_history`` and to every callback of the handler that is calling now.

    Make it inside a callback's event.
    """

    def __init__(self) -> None:
        self._handler = called.handler if (called := caller()) else None
        if self._handler is None:
            _logger.warning(
                "no transformers Trainer is calling: merges are logged to state.log_history alone"
            )

    def write(
        self,
        values: Mapping[str, float],
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
    ) -> None:
        """Log ``values`` at the current step; whether the Trainer logs of its own accord stays as it was."""
        logs = dict(values)
        if state.epoch is not None:
            logs["epoch"] = state.epoch
        state.log_history.append({**logs, "step": state.global_step})
        if self._handler is not None:
            should_log = control.should_log
            self._handler.on_log(args, state, control, logs)
            control.should_log = should_log
