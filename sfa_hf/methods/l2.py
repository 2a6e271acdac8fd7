"""L2 towards the weights that a task starts from: as a term of the loss, or decoupled from the optimizer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ModelWrapValidatorHandler, model_validator
from transformers import TrainerCallback

from sfa_hf.adapters.options import AFTER_TASK, AdapterOptions
from sfa_hf.callbacks.penalty import L2Callback
from sfa_hf.callbacks.pull import PullCallback
from sfa_hf.config.declared import key_of
from sfa_hf.config.options import Flag
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import FromSecondTask, Stage
from sfa_hf.methods.taken import From

_LOSS_FORM = {"lambda_": 0.1}
_DECOUPLED_FORM = {"beta": 0.5, "p": 0.25, "lora": "exact"}
"""The options of each form alone, and what they are unless given."""
_OPTIONS = (
    From(L2Callback, defaults=dict.fromkeys(_LOSS_FORM)),
    From(PullCallback, only=tuple(_DECOUPLED_FORM), defaults=dict.fromkeys(_DECOUPLED_FORM)),
)


class L2(FromSecondTask, takes=_OPTIONS):
    r"""Trains on L + (\lambda/2) ||\theta - \theta_o||_2^2, or pulls \theta to \theta_o after every step.

    \theta_o is the model that the task starts from. The decoupled pull, \beta_s = 1 - (1 - \beta)^{1/K} with
    K = pT, is as strong as SFA's averages with the same \beta and p. \lambda is of the loss form alone (0.1
    unless given), \beta, p and ``lora`` of the decoupled form alone (0.5, 0.25 and "exact" unless given).

    Attributes:
        decoupled: pull after every optimizer step, instead of a term in the loss.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = AFTER_TASK

    name: Literal["l2"] = "l2"
    decoupled: Flag = False

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
                key, form = key_of(field), f"method.decoupled is {str(self.decoupled).lower()}"
                raise ConfigError(
                    key, f"is {value}, and {form}", f"leave {key} out, or choose the other form"
                )

    def check_adapters(self, options: AdapterOptions, after_task: str) -> None:
        del options
        if self.decoupled and after_task == "carry" and self.taken(PullCallback)["lora"] == "exact":
            problem = "is exact, and a carried adapter would be cut back to its rank after every step"
            raise ConfigError("lora", problem, "method.lora=factors, or another model.peft.after_task")

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        callback = PullCallback if self.decoupled else L2Callback
        return [self.make(callback, anchor=stage.anchor)] if self.works_in(stage) else []
