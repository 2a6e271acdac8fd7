"""O-LoRA: each task learns in a subspace orthogonal to those of the tasks before (arXiv 2310.14152)."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import TrainerCallback

from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.callbacks.orthogonal import OrthogonalCallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import PLAIN, Method, Stage
from sfa_hf.methods.taken import From


class OLoRA(Method, takes=From(OrthogonalCallback)):
    r"""Trains on L + \lambda sum_i ||A_i A_t^T||_1 over the adapters i of the tasks before.

    A task's adapter stays as it is, and the next task trains a new one beside it. A task's model is the sum
    of all adapters so far: one adapter, whose rank grows by r with each task.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = ("keep",)
    NEEDS_ADAPTERS: ClassVar[bool] = True

    name: Literal["o_lora"] = "o_lora"

    def check_adapters(self, options: AdapterOptions, after_task: str) -> None:
        del after_task
        refuse_other_factors(options, self.name)

    @property
    def first_training(self) -> str | None:
        return PLAIN

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        return [self.make(OrthogonalCallback, past=stage.start)] if stage.past else []


def refuse_other_factors(options: AdapterOptions, method: str) -> None:
    """Refuse adapters whose updates are more than s B A.

    Raises:
        ConfigError: names the option.
    """
    if more := options.more_than_products:
        problem = f"has {more}, and {method} is about the factors A and B of linear layers"
        raise ConfigError("name", problem, f"no model.peft.{more}")
