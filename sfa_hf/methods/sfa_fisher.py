"""SFA whose merges are weighted by the optimizer's second moments (arXiv 2501.05559 with 2509.23592)."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import TrainerCallback

from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import CARRY, Method, Stage
from sfa_hf.methods.taken import From
from sfa_hf.moments.callback import SecondMomentsCallback
from sfa_hf.moments.folder import FOLDER, moments_in
from sfa_hf.moments.past import CONSTANT

_OPTIONS = From(
    SFACallback,
    without=("rule", "optimizer_state"),
    names={"shuffle_moments": "shuffle"},
    defaults={"beta": 0.25},
)


class SFAFisher(Method, takes=_OPTIONS):
    r"""Every pT steps and at step T: \theta <- (w_o \theta_o + w \theta) / (w_o + w), entry by entry.

    w_o = \beta (\bar F_o + \epsilon)^q, w = (1 - \beta) (F + \epsilon)^q; F is Adam's second moment of this
    task, \bar F_o that of the tasks before. The first task is trained without merging and leaves its second
    moments.

    Attributes:
        moments: what \bar F_o is. "tasks": the second moments of the tasks before; "constant", a control: the
            mean of F over each parameter, so that this task's moments alone tell entries apart.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = CARRY
    KEEPS: ClassVar[tuple[str, ...]] = (FOLDER,)
    STATISTICS: ClassVar[int] = 1

    name: Literal["sfa_fisher"] = "sfa_fisher"
    moments: Literal["tasks", "constant"] = "tasks"

    def check_adapters(self, options: AdapterOptions, after_task: str) -> None:
        del options, after_task
        if self.taken(SFACallback)["lora"] == "exact":
            problem = "is exact, and second moments weight entries of factors, not of updates"
            raise ConfigError("lora", problem, "method.lora=factors")

    @property
    def first_training(self) -> str | None:
        return FOLDER

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if not stage.past:
            return [SecondMomentsCallback()]
        moments = str(moments_in(stage.past[-1].folder)) if self.moments == "tasks" else CONSTANT
        return [self.make(SFACallback, rule="fisher", anchor=stage.anchor, anchor_moments=moments)]
