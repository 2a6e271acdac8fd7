"""SFA whose merges are weighed by the optimizer's second moments (arXiv 2501.05559 with 2509.23592)."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import TrainerCallback

from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import Method, Stage
from sfa_hf.moments.callback import SecondMomentsCallback
from sfa_hf.moments.folder import FOLDER
from sfa_hf.moments.past import CONSTANT


class SFAFisher(Method):
    r"""Every pT steps and at step T: theta <- (w_o theta_o + w theta) / (w_o + w), entry by entry.

    w_o = beta (F_bar_o + epsilon)^q, w = (1 - beta) (F + epsilon)^q; F is Adam's second moment of this task,
    F_bar_o that of the tasks before. The first task is trained without merging and leaves its second moments.

    Attributes:
        power: q.
        moments: what F_bar_o is. "tasks": the second moments of the tasks before; "constant", a control: the
            mean of F over each parameter, so that this task's moments alone tell entries apart.
        shuffle: a control: F_bar_o is shuffled within each parameter, by a seed of its own.
    """

    KEEPS: ClassVar[tuple[str, ...]] = (FOLDER,)
    STATISTICS: ClassVar[int] = 1

    name: Literal["sfa_fisher"] = "sfa_fisher"
    beta: float = 0.25
    p: float = 0.25
    merge_every: int | None = None
    power: float = 0.5
    moments: Literal["tasks", "constant"] = "tasks"
    shuffle: int | None = None
    anchor_device: str = "cpu"
    anchor_dtype: Literal["float32", "bfloat16"] = "float32"
    include: str | None = None
    exclude: str | None = None

    def check(self) -> None:
        try:
            self._callback(anchor=None, anchor_moments=None if self.moments == "tasks" else CONSTANT)
        except ConfigError as error:
            key = {"shuffle_moments": "shuffle"}.get(error.key, error.key)
            raise ConfigError(f"method.{key}", error.problem, error.right) from error

    @property
    def first_task(self) -> str | None:
        return FOLDER

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if not stage.past:
            return [SecondMomentsCallback()]
        moments = str(stage.past[-1].folder / FOLDER) if self.moments == "tasks" else CONSTANT
        return [self._callback(anchor=stage.start, anchor_moments=moments)]

    def _callback(self, anchor: str | None, anchor_moments: str | None) -> SFACallback:
        options = self.model_dump(exclude={"name", "moments", "shuffle"})
        return SFACallback(
            **options,
            rule="fisher",
            anchor=anchor,
            anchor_moments=anchor_moments,
            shuffle_moments=self.shuffle,
        )
