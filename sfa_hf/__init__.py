"""Sequential Fine-tuning with Averaging for the Hugging Face Trainer."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfa_hf.callback import SFACallback

__version__ = version("sfa_hf")

__all__ = ["SFACallback", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the callback, and transformers with it, when it is asked for: merging files needs neither."""
    if name == "SFACallback":
        from sfa_hf.callback import SFACallback  # noqa: PLC0415 - see above

        return SFACallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
