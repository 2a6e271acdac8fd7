"""Training engines behind one interface: see :mod:`sfa_hf.engines.base`."""

from sfa_hf.engines.attach import attach
from sfa_hf.engines.base import Engine, Handle, Shard

__all__ = ["Engine", "Handle", "Shard", "attach"]
