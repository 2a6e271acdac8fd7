"""Sequential Fine-tuning with Averaging (arXiv 2501.05559)."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import TrainerCallback

from sfa_hf.adapters.options import AFTER_TASK
from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import FromSecondTask, Stage
from sfa_hf.methods.taken import From
from sfa_hf.rules import training_rules


class SFA(FromSecondTask, takes=From(SFACallback, without=("power", "shuffle_moments"))):
    r"""Every pT steps and at step T: \theta <- (1-\beta) \theta + \beta \theta_o.

    \theta_o is the model that the task starts from: the merged weights of the task before.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = AFTER_TASK

    name: Literal["sfa"] = "sfa"

    def check(self) -> None:
        rule = self.taken(SFACallback)["rule"]
        if training_rules()[rule].needs_importances:
            problem = f"{rule!r} weights by the second moments of the tasks before, which sfa does not keep"
            raise ConfigError("rule", problem, "method.name=sfa_fisher")

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        return [self.make(SFACallback, anchor=stage.anchor)] if self.works_in(stage) else []
