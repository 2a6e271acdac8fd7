"""Task Arithmetic: add task vectors to the base (arXiv 2212.04089)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from sfa_hf.rules.average import weighted_sum
from sfa_hf.rules.base import Block, Finite, MergeRule, Survey, check_count, weights_or_equal


class TaskArithmetic(MergeRule):
    r"""\theta_base + \lambda \sum_k w_k \tau_k, with \tau_k = \theta_k - \theta_base.

    Attributes:
        lambda_: \lambda, scale of the sum; a negative one unlearns.
        weights: w_k, one a model; 1 each where none are given, as in the paper.
    """

    name: ClassVar[str] = "task_arithmetic"
    needs_base: ClassVar[bool] = True

    lambda_: Finite = Field(1.0, alias="lambda")
    weights: list[Finite] | None = None

    def check(self, models: int) -> None:
        """Weights: one a model."""
        check_count(self.weights, models)

    def merge(self, block: Block, survey: Survey | None) -> Tensor:  # noqa: ARG002 - has no survey
        """Add the block's task vectors to its base."""
        assert block.base is not None
        weights = weights_or_equal(self.weights, len(block.models), 1.0)
        return weighted_sum(block.task_vectors(), weights).mul_(self.lambda_).add_(block.base)
