"""TIES: trim task vectors, elect signs, average what agrees (arXiv 2306.01708)."""

from __future__ import annotations

from typing import ClassVar, Literal

from sfa_hf.methods.saved_models import TaskVectors
from sfa_hf.methods.taken import From
from sfa_hf.rules import Ties


class TIES(TaskVectors, takes=From(Ties)):
    r"""\theta_base + \lambda times the disjoint mean of the trimmed \tau_k."""

    RULE: ClassVar[str] = "ties"

    name: Literal["ties"] = "ties"
