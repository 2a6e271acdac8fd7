"""WiSE-FT: interpolate between the model before and after fine-tuning (arXiv 2109.01903)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sfa_hf.methods.base import CARRY, FromSecondTask, Stage
from sfa_hf.methods.saved_models import MergesSaved
from sfa_hf.methods.taken import From
from sfa_hf.rules import WiseFT


class WiSEFT(MergesSaved, FromSecondTask, takes=From(WiseFT)):
    r"""After a task: (1 - \alpha) \theta_zero + \alpha \theta, once.

    Attributes:
        zero_shot: \theta_zero. "start": the model that the task started from, and the merged model is where
            the next task starts: SFA with p = 1 and \beta = 1 - \alpha, made of saved models. "base": the
            model before all tasks, while training goes on from the unmerged weights.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = CARRY
    RULE: ClassVar[str] = "wise_ft"

    name: Literal["wise_ft"] = "wise_ft"
    zero_shot: Literal["start", "base"] = "start"

    def start(self, stage: Stage) -> str:
        if self.zero_shot == "start" or not stage.past:
            return stage.start
        return str(stage.past[-1].trained if self.works_in(stage.past[-1]) else stage.past[-1].model)

    def deployed(self, stage: Stage) -> dict[str, Any] | None:
        if not self.works_in(stage):
            return None
        zero = stage.start if self.zero_shot == "start" else stage.base
        return self.recipe(stage, [str(stage.trained)], zero)
