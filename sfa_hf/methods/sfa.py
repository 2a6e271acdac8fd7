"""Sequential Fine-tuning with Averaging (arXiv 2501.05559)."""

from __future__ import annotations

from typing import Literal

from transformers import TrainerCallback

from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import PLAIN, Method, Stage


class SFA(Method):
    """Every pT steps and at step T: theta <- (1-beta) theta + beta theta_o.

    theta_o is the model that the task starts from: the merged weights of the task before. The options are
    those of :class:`sfa_hf.SFACallback`, which checks them.

    Attributes:
        merge_first_task: also merge during the first task, whose anchor is the base model. The paper's runs
            do not: their first anchor is the model trained on the first task.
    """

    name: Literal["sfa"] = "sfa"
    beta: float = 0.5
    p: float = 0.25
    merge_every: int | None = None
    anchor_device: str = "cpu"
    anchor_dtype: Literal["float32", "bfloat16"] = "float32"
    rule: str = "average"
    optimizer_state: Literal["keep", "reset", "scale"] = "keep"
    include: str | None = None
    exclude: str | None = None
    merge_first_task: bool = False

    def check(self) -> None:
        try:
            self._callback(anchor=None)
        except ConfigError as error:
            raise ConfigError(f"method.{error.key}", error.problem, error.right) from error

    @property
    def first_task(self) -> str | None:
        return None if self.merge_first_task else PLAIN

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if stage.index == 0 and not self.merge_first_task:
            return []
        return [self._callback(anchor=stage.start)]

    def _callback(self, anchor: str | None) -> SFACallback:
        return SFACallback(**self.model_dump(exclude={"name", "merge_first_task"}), anchor=anchor)
