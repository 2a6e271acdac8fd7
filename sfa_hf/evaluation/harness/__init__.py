"""Tasks of EleutherAI's lm-evaluation-harness, run on a saved model in processes of their own.

A live model could be handed over, but lm-eval then forgoes its distributed set-up: every process would
evaluate every row. On a saved model the processes share them, and lm-eval stays out of the
training.
"""

from sfa_hf.evaluation.harness.check import check_lm_eval
from sfa_hf.evaluation.harness.launch import Harness
from sfa_hf.evaluation.harness.table import lm_eval_table

__all__ = ["Harness", "check_lm_eval", "lm_eval_table"]
