"""An exponential moving average of the weights over each task's training, deployed when the task ends."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import TrainerCallback

from sfa_hf.adapters.options import AFTER_TASK
from sfa_hf.callbacks.ema import EMACallback
from sfa_hf.methods.base import FromSecondTask, Stage
from sfa_hf.methods.taken import From


class EMA(FromSecondTask, takes=From(EMACallback, names={"device": "average_device"})):
    r"""After every step \bar\theta <- d \bar\theta + (1 - d) \theta, from \bar\theta = \theta_o.

    Training goes on from \theta; when the task's last step ends, \bar\theta is its model, and the start of
    the next task.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = AFTER_TASK

    name: Literal["ema"] = "ema"

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        return [self.make(EMACallback)] if self.works_in(stage) else []
