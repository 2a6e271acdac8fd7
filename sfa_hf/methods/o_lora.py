"""O-LoRA: each task learns in a subspace orthogonal to those of the tasks before (arXiv 2310.14152)."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import TrainerCallback

from sfa_hf.callbacks.orthogonal import OrthogonalCallback
from sfa_hf.methods.base import Stage
from sfa_hf.methods.factors import OfFactors
from sfa_hf.methods.taken import From


class OLoRA(OfFactors, takes=From(OrthogonalCallback)):
    r"""Trains on L + \lambda sum_i ||A_i A_t^T||_1 over the adapters i of the tasks before.

    A task's adapter stays as it is, and the next task trains a new one beside it. A task's model is the sum
    of all adapters so far: one adapter, whose rank grows by r with each task.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = ("keep",)

    name: Literal["o_lora"] = "o_lora"

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        return [self.make(OrthogonalCallback, past=stage.start)] if stage.past else []
