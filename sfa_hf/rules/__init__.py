"""How two or more tensors become one, one rule a file. Pure tensor functions: no I/O, no engine."""

from __future__ import annotations

from functools import cache

from sfa_hf.registry import classes, plugins
from sfa_hf.rules.average import Average, average
from sfa_hf.rules.base import BLOCK, Block, MergeRule, Survey
from sfa_hf.rules.dare import Dare
from sfa_hf.rules.fisher import EPSILON, Fisher, anchor_weight
from sfa_hf.rules.slerp import Slerp
from sfa_hf.rules.state_dicts import conclude_survey, merge_state_dicts
from sfa_hf.rules.task_arithmetic import TaskArithmetic
from sfa_hf.rules.ties import Ties
from sfa_hf.rules.wise_ft import WiseFT

__all__ = [
    "BLOCK",
    "EPSILON",
    "Average",
    "Block",
    "Dare",
    "Fisher",
    "MergeRule",
    "Slerp",
    "Survey",
    "TaskArithmetic",
    "Ties",
    "WiseFT",
    "anchor_weight",
    "average",
    "conclude_survey",
    "known_rules",
    "merge_state_dicts",
    "training_rules",
]


@cache
def known_rules() -> dict[str, type[MergeRule]]:
    """Every rule of this folder by the name that recipes use."""
    return plugins(__name__, classes(MergeRule))


def training_rules() -> dict[str, type[MergeRule]]:
    """The rules that work in training too."""
    return {name: rule for name, rule in known_rules().items() if rule.trains()}
