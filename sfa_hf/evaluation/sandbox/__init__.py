"""Running generated programs without harm, and without believing what they say about themselves."""

from sfa_hf.evaluation.sandbox.boxes import Bare, Box, Bubblewrap, Namespaces, available_box, problem_with
from sfa_hf.evaluation.sandbox.choice import box_for
from sfa_hf.evaluation.sandbox.limits import Limits
from sfa_hf.evaluation.sandbox.outcome import Outcome, Verdict
from sfa_hf.evaluation.sandbox.runner import Program, SandboxError, run_program, run_programs

__all__ = [
    "Bare",
    "Box",
    "Bubblewrap",
    "Limits",
    "Namespaces",
    "Outcome",
    "Program",
    "SandboxError",
    "Verdict",
    "available_box",
    "box_for",
    "problem_with",
    "run_program",
    "run_programs",
]
