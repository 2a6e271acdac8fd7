"""Correction of features after a merge: the third stage of CMM (arXiv 2509.23592). It can be used alone."""

from sfa_hf.correction.correct import Correction, correct
from sfa_hf.correction.features import Mismatch, feature_mismatch
from sfa_hf.correction.parameters import default_parameters

__all__ = ["Correction", "Mismatch", "correct", "default_parameters", "feature_mismatch"]
