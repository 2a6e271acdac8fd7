"""DARE: drop entries of task vectors at random and rescale the others (arXiv 2311.03099)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from sfa_hf.methods.base import Stage
from sfa_hf.methods.saved_models import TaskVectors


class DARE(TaskVectors):
    r"""\theta_base + \lambda \sum_k \tau~_k, where \tau~_k is \tau_k with entries dropped, divided by 1 - q.

    Which entries are dropped follows from the run's seed.

    Attributes:
        drop: q, probability of an entry to be dropped.
        lambda_: \lambda.
        sign_election: take TIES' disjoint mean of the \tau~_k instead of their sum.
    """

    RULE: ClassVar[str] = "dare"

    name: Literal["dare"] = "dare"
    drop: float = 0.5
    lambda_: float = Field(0.4, alias="lambda")
    sign_election: bool = False

    def deployed(self, stage: Stage) -> dict[str, Any]:
        recipe = super().deployed(stage)
        return {**recipe, "rule": {**recipe["rule"], "seed": stage.seed}}
