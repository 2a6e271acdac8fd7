"""Task Arithmetic: the base plus the scaled sum of task vectors (arXiv 2212.04089)."""

from __future__ import annotations

from typing import ClassVar, Literal

from sfa_hf.methods.saved_models import TaskVectors
from sfa_hf.methods.taken import From
from sfa_hf.rules import TaskArithmetic as Rule


# 0.4 is what the paper recommends for sums of several tasks.
class TaskArithmetic(TaskVectors, takes=From(Rule, defaults={"lambda_": 0.4})):
    r"""\theta_base + \lambda \sum_k \tau_k."""

    RULE: ClassVar[str] = "task_arithmetic"

    name: Literal["task_arithmetic"] = "task_arithmetic"
