"""Sequential Fine-tuning with Averaging for the Hugging Face Trainer."""

from importlib.metadata import version

from sfa_hf.callback import SFACallback

__version__ = version("sfa_hf")

__all__ = ["SFACallback", "__version__"]
