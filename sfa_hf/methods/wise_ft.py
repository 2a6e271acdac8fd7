"""WiSE-FT: interpolate between the model before and after fine-tuning (arXiv 2109.01903)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sfa_hf.methods.base import PLAIN, Stage
from sfa_hf.methods.saved_models import MergesSaved


class WiSEFT(MergesSaved):
    r"""After a task: (1 - \alpha) \theta_zero + \alpha \theta, once.

    Attributes:
        alpha: \alpha, weight of the fine-tuned model.
        zero_shot: \theta_zero. "start": the model that the task started from, and the merged model is where
            the next task starts: SFA with p = 1 and \beta = 1 - \alpha, made of saved models. "base": the
            model before all tasks, while training goes on from the unmerged weights.
        merge_first_task: also merge after the first task, with the base.
    """

    RULE: ClassVar[str] = "wise_ft"
    OWN: ClassVar[frozenset[str]] = frozenset({"zero_shot", "merge_first_task"})

    name: Literal["wise_ft"] = "wise_ft"
    alpha: float = 0.5
    zero_shot: Literal["start", "base"] = "start"
    merge_first_task: bool = False

    @property
    def first_task(self) -> str | None:
        return None if self.merge_first_task else PLAIN

    def start(self, stage: Stage) -> str:
        if self.zero_shot == "start" or not stage.past:
            return stage.start
        return str(stage.past[-1].trained if self._merges(stage.past[-1]) else stage.past[-1].model)

    def deployed(self, stage: Stage) -> dict[str, Any] | None:
        if not self._merges(stage):
            return None
        zero = stage.start if self.zero_shot == "start" else stage.base
        return self.recipe(stage, [str(stage.trained)], zero)

    def _merges(self, stage: Stage) -> bool:
        return stage.index > 0 or self.merge_first_task
