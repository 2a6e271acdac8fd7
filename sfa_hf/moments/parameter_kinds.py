"""What a parameter is in a transformer, by its name: to tell where a merge pulls."""

from __future__ import annotations

import re

KINDS = {
    "norms": r"norm|(^|\.)ln_",
    "embeddings": r"embed|wte|wpe|lm_head",
    "attention": r"attn|attention",
    "mlp": r"mlp|feed_forward|ffn|experts",
}
"""Searched in this order: a norm in an attention block is a norm."""
OTHER = "other"


def parameter_kind(name: str) -> str:
    """One of :data:`KINDS`, or "other".

    Args:
        name: as in ``named_parameters()`` of a transformers model.
    """
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower())), OTHER)
