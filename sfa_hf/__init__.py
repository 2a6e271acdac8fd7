"""Sequential Fine-tuning with Averaging for the Hugging Face Trainer."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfa_hf.callback import SFACallback
    from sfa_hf.ema import EMACallback
    from sfa_hf.estimated_moments import estimate_second_moments
    from sfa_hf.ewc import EWCCallback
    from sfa_hf.moments_callback import SecondMomentsCallback
    from sfa_hf.penalty import L2Callback
    from sfa_hf.pull import PullCallback

__version__ = version("sfa_hf")

__all__ = [
    "EMACallback",
    "EWCCallback",
    "L2Callback",
    "PullCallback",
    "SFACallback",
    "SecondMomentsCallback",
    "__version__",
    "estimate_second_moments",
]

_HOMES = {
    "EMACallback": "sfa_hf.ema",
    "EWCCallback": "sfa_hf.ewc",
    "L2Callback": "sfa_hf.penalty",
    "PullCallback": "sfa_hf.pull",
    "SFACallback": "sfa_hf.callback",
    "SecondMomentsCallback": "sfa_hf.moments_callback",
    "estimate_second_moments": "sfa_hf.estimated_moments",
}


def __getattr__(name: str) -> Any:
    """Import a callback, and transformers with it, when it is asked for: merging files needs neither."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
