"""Scoring a model on a task, while it trains or afterwards, and comparing two scored runs."""

from sfa_hf.evaluation.compare import Difference, Transitions, paired_difference, transitions
from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.records import read_records
from sfa_hf.evaluation.score import TaskScore, check_tasks, evaluate_task
from sfa_hf.evaluation.table import score_table

__all__ = [
    "Difference",
    "EvaluationOptions",
    "TaskScore",
    "Transitions",
    "check_tasks",
    "evaluate_task",
    "paired_difference",
    "read_records",
    "score_table",
    "transitions",
]
