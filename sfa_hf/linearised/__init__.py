"""Linearised fine-tuning: the first stage of CMM (arXiv 2509.23592). It can be used alone."""

from sfa_hf.linearised.model import is_linearised, linearise
from sfa_hf.linearised.saved import FILE, load_linearised

__all__ = ["FILE", "is_linearised", "linearise", "load_linearised"]
