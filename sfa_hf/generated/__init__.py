"""Seeded generators of Math, Law and Code rows, for demos and tests without a download."""

from sfa_hf.generated.rows import GENERATORS, generate, split_of

__all__ = ["GENERATORS", "generate", "split_of"]
