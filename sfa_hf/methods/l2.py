"""L2 towards the weights that a task starts from: as a term of the loss, or decoupled from the optimizer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_validator
from transformers import TrainerCallback

from sfa_hf.callbacks.penalty import L2Callback
from sfa_hf.callbacks.pull import PullCallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import PLAIN, Method, Stage

_LOSS_FORM = {"lambda_": 0.1}
_DECOUPLED_FORM = {"beta": 0.5, "p": 0.25}
"""The options of each form alone, and what they are unless given."""


class L2(Method):
    r"""Trains on L + (\lambda/2) ||\theta - \theta_o||_2^2, or pulls \theta to \theta_o after every step.

    \theta_o is the model that the task starts from. The decoupled pull, \beta_s = 1 - (1 - \beta)^{1/K} with
    K = pT, is as strong as SFA's averages with the same \beta and p.

    Attributes:
        lambda_: \lambda, ``lambda`` in a config; of the loss form alone, 0.1 unless given.
        decoupled: pull after every optimizer step, instead of a term in the loss.
        beta: SFA's \beta; of the decoupled form alone, 0.5 unless given.
        p: SFA's p; of the decoupled form alone, 0.25 unless given.
        penalise_first_task: also in the first task, whose \theta_o is the base model.
    """

    name: Literal["l2"] = "l2"
    lambda_: float | None = Field(None, alias="lambda")
    decoupled: bool = False
    beta: float | None = None
    p: float | None = None
    anchor_device: Literal["cpu", "disk", "device"] = "cpu"
    anchor_dtype: Literal["float32", "bfloat16"] = "float32"
    include: str | None = None
    exclude: str | None = None
    penalise_first_task: bool = False

    @model_validator(mode="wrap")
    @classmethod
    def _with_defaults(cls, values: Any, handler: ModelWrapValidatorHandler[L2]) -> L2:
        # Those of the form that is chosen: a run's config then shows what was used, and nothing else.
        method = handler(values)
        form = _DECOUPLED_FORM if method.decoupled else _LOSS_FORM
        missing = {field: value for field, value in form.items() if getattr(method, field) is None}
        return method.model_copy(update=missing)

    def check(self) -> None:
        for field in _LOSS_FORM if self.decoupled else _DECOUPLED_FORM:
            if (value := getattr(self, field)) is not None:
                key, form = field.rstrip("_"), f"method.decoupled is {str(self.decoupled).lower()}"
                raise ConfigError(
                    f"method.{key}", f"is {value}, and {form}", f"leave {key} out, or choose the other form"
                )
        try:
            self._callback(anchor=None)
        except ConfigError as error:
            raise ConfigError(f"method.{error.key}", error.problem, error.right) from error

    @property
    def first_task(self) -> str | None:
        return None if self.penalise_first_task else PLAIN

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if stage.index == 0 and not self.penalise_first_task:
            return []
        return [self._callback(anchor=stage.start)]

    def _callback(self, anchor: str | None) -> TrainerCallback:
        callback = PullCallback if self.decoupled else L2Callback
        form = _DECOUPLED_FORM if self.decoupled else _LOSS_FORM
        shared = {"anchor_device", "anchor_dtype", "include", "exclude"}
        return callback(**self.model_dump(include={*form, *shared}), anchor=anchor)
