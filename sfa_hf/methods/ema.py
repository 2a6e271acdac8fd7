"""An exponential moving average of the weights over each task's training, deployed when the task ends."""

from __future__ import annotations

from typing import Literal

from transformers import TrainerCallback

from sfa_hf.callbacks.ema import EMACallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import PLAIN, Method, Stage


class EMA(Method):
    r"""After every step \bar\theta <- d \bar\theta + (1 - d) \theta, from \bar\theta = \theta_o.

    Training goes on from \theta; when the task's last step ends, \bar\theta is its model, and the start of
    the next task.

    Attributes:
        decay: d in [0, 1].
        average_device: where the average is kept.
        average_first_task: also in the first task, whose \theta_o is the base model.
    """

    name: Literal["ema"] = "ema"
    decay: float = 0.99
    average_device: Literal["cpu", "device"] = "device"
    average_first_task: bool = False

    def check(self) -> None:
        try:
            self._callback()
        except ConfigError as error:
            raise ConfigError(f"method.{error.key}", error.problem, error.right) from error

    @property
    def first_task(self) -> str | None:
        return None if self.average_first_task else PLAIN

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if stage.index == 0 and not self.average_first_task:
            return []
        return [self._callback()]

    def _callback(self) -> EMACallback:
        return EMACallback(self.decay, device=self.average_device)
