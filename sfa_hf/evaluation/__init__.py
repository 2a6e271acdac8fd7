"""Scoring a model on a task, while it trains or afterwards, and comparing two scored runs."""

from sfa_hf.evaluation.compare import (
    Difference,
    Transitions,
    chance_level,
    nll_rise,
    paired_difference,
    right_or_wrong,
    transitions,
)
from sfa_hf.evaluation.options import EvaluationOptions, LmEvalOptions
from sfa_hf.evaluation.records import read_records
from sfa_hf.evaluation.run_comparison import TaskComparison, compare_folders, parse_stages
from sfa_hf.evaluation.score import TaskScore, check_tasks, evaluate_task
from sfa_hf.evaluation.table import comparison_table, score_table

__all__ = [
    "Difference",
    "EvaluationOptions",
    "LmEvalOptions",
    "TaskComparison",
    "TaskScore",
    "Transitions",
    "chance_level",
    "check_tasks",
    "compare_folders",
    "comparison_table",
    "evaluate_task",
    "nll_rise",
    "paired_difference",
    "parse_stages",
    "read_records",
    "right_or_wrong",
    "score_table",
    "transitions",
]
