"""Task Arithmetic: the base plus the scaled sum of task vectors (arXiv 2212.04089)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sfa_hf.methods.saved_models import TaskVectors


class TaskArithmetic(TaskVectors):
    r"""\theta_base + \lambda \sum_k \tau_k.

    Attributes:
        lambda_: \lambda; 0.4 is what its paper recommends for sums of several tasks.
    """

    RULE: ClassVar[str] = "task_arithmetic"

    name: Literal["task_arithmetic"] = "task_arithmetic"
    lambda_: float = Field(0.4, alias="lambda")
