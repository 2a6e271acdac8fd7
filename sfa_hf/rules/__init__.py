"""How two or more tensors become one. Pure tensor functions: no I/O, no engine."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sfa_hf.rules.average import Average, WiseFT, average
from sfa_hf.rules.base import BLOCK, Block, MergeRule, Survey
from sfa_hf.rules.dare import Dare
from sfa_hf.rules.fisher import EPSILON, Fisher, anchor_weight
from sfa_hf.rules.slerp import Slerp
from sfa_hf.rules.state_dicts import conclude_survey, merge_state_dicts
from sfa_hf.rules.task_arithmetic import TaskArithmetic
from sfa_hf.rules.ties import Ties

Rule = Callable[[Tensor, Tensor, float | Tensor], None]
"""A rule of a merge in training: ``rule(theta, theta_o, beta)`` edits theta in place."""

TRAINING_RULES: dict[str, Rule] = {"average": average, "fisher": average}
"""The rules of a merge in training. "fisher" averages too, with an :func:`anchor_weight` for each entry."""

CHECKPOINT_RULES: dict[str, type[MergeRule]] = {
    "average": Average,
    "wise_ft": WiseFT,
    "slerp": Slerp,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare": Dare,
    "fisher": Fisher,
}
"""The rules of a merge of saved models, by the names that recipes use."""

__all__ = [
    "BLOCK",
    "CHECKPOINT_RULES",
    "EPSILON",
    "TRAINING_RULES",
    "Average",
    "Block",
    "Dare",
    "Fisher",
    "MergeRule",
    "Rule",
    "Slerp",
    "Survey",
    "TaskArithmetic",
    "Ties",
    "WiseFT",
    "anchor_weight",
    "average",
    "conclude_survey",
    "merge_state_dicts",
]
