"""Sequential Fine-tuning with Averaging for the Hugging Face Trainer."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfa_hf.averaging.loop import SFA
    from sfa_hf.callbacks.ema import EMACallback
    from sfa_hf.callbacks.ewc import EWCCallback
    from sfa_hf.callbacks.penalty import L2Callback
    from sfa_hf.callbacks.pull import PullCallback
    from sfa_hf.callbacks.sfa import SFACallback
    from sfa_hf.engines.edit import edit
    from sfa_hf.moments.callback import SecondMomentsCallback
    from sfa_hf.moments.estimate import estimate_second_moments

__version__ = version("sfa_hf")

__all__ = [
    "SFA",
    "EMACallback",
    "EWCCallback",
    "L2Callback",
    "PullCallback",
    "SFACallback",
    "SecondMomentsCallback",
    "__version__",
    "edit",
    "estimate_second_moments",
]

_HOMES = {
    "SFA": "sfa_hf.averaging.loop",
    "EMACallback": "sfa_hf.callbacks.ema",
    "EWCCallback": "sfa_hf.callbacks.ewc",
    "L2Callback": "sfa_hf.callbacks.penalty",
    "PullCallback": "sfa_hf.callbacks.pull",
    "SFACallback": "sfa_hf.callbacks.sfa",
    "SecondMomentsCallback": "sfa_hf.moments.callback",
    "edit": "sfa_hf.engines.edit",
    "estimate_second_moments": "sfa_hf.moments.estimate",
}


def __getattr__(name: str) -> Any:
    """Import a name, and transformers with it, when it is asked for: merging files needs neither."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
