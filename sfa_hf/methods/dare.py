"""DARE: drop entries of task vectors at random and rescale the others (arXiv 2311.03099)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sfa_hf.methods.base import Stage
from sfa_hf.methods.saved_models import TaskVectors
from sfa_hf.methods.taken import From
from sfa_hf.rules import Dare


class DARE(TaskVectors, takes=From(Dare, defaults={"drop": 0.5, "lambda_": 0.4})):
    r"""\theta_base + \lambda \sum_k \tau~_k, where \tau~_k is \tau_k with entries dropped, divided by 1 - q.

    Which entries are dropped follows from the run's seed.
    """

    RULE: ClassVar[str] = "dare"

    name: Literal["dare"] = "dare"

    def deployed(self, stage: Stage) -> dict[str, Any]:
        recipe = super().deployed(stage)
        return {**recipe, "rule": {**recipe["rule"], "seed": stage.seed}}
