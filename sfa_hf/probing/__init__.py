"""Loss, score and features along the path between two checkpoints."""

from sfa_hf.probing.options import ProbeOptions
from sfa_hf.probing.probe import run_probe

__all__ = ["ProbeOptions", "run_probe"]
