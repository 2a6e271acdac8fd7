"""Scoring a model on a task, while it trains or afterwards."""

from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.score import TaskScore, evaluate_task

__all__ = ["EvaluationOptions", "TaskScore", "evaluate_task"]
