"""The kinds of scoring that a task may name."""

from __future__ import annotations

from functools import cache
from typing import Any

from sfa_hf.registry import plugins


@cache
def known_scorings() -> dict[str, Any]:
    """The modules of ``sfa_hf/evaluation/scoring/`` that score, by name: see ``Kind`` in its ``base.py``.

    They stand above this room, which learns of them by their folder alone.
    """
    return plugins(
        "sfa_hf.evaluation.scoring",
        lambda module: {module.__name__.rpartition(".")[2]: module} if hasattr(module, "METRICS") else {},
    )
