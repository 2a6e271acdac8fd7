"""EWC's diagonal empirical Fisher: estimated and saved."""

from sfa_hf.fisher.estimate import estimate_fisher

__all__ = ["estimate_fisher"]
