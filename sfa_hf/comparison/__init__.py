"""Several methods and seeds on one sequence of tasks: which runs there are, and what they say together."""

from sfa_hf.comparison.launch import carry_out
from sfa_hf.comparison.plan import Plan, PlannedRun, load_plan
from sfa_hf.comparison.writing import write_comparison

__all__ = ["Plan", "PlannedRun", "carry_out", "load_plan", "write_comparison"]
