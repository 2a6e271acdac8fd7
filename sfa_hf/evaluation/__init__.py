"""Scoring a model on a task, while it trains or afterwards."""

from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.score import TaskScore, evaluate_task
from sfa_hf.evaluation.table import score_table

__all__ = ["EvaluationOptions", "TaskScore", "evaluate_task", "score_table"]
