"""TIES: trim task vectors, elect signs, average what agrees (arXiv 2306.01708)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sfa_hf.methods.saved_models import TaskVectors


class TIES(TaskVectors):
    r"""\theta_base + \lambda times the disjoint mean of the trimmed \tau_k.

    Attributes:
        density: fraction of each \tau_k that is kept, by magnitude.
        lambda_: \lambda.
        threshold: one over the whole "vector", as in the paper, or one a "tensor".
    """

    RULE: ClassVar[str] = "ties"

    name: Literal["ties"] = "ties"
    density: float = 0.2
    lambda_: float = Field(1.0, alias="lambda")
    threshold: Literal["vector", "tensor"] = "vector"
