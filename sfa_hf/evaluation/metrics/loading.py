"""How the package loads its own metric modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evaluate

_FOLDER = Path(__file__).parent


def compute(metric: str, **columns: Sequence[Any] | str) -> dict[str, float]:
    """Load a metric module and apply it.

    From its path, so without a network; in memory, so that any number of processes may do it at once.

    Args:
        metric: name of a folder beside this file.
        columns: the module's inputs, one value a row, and its options.
    """
    module = evaluate.load(str(_FOLDER / metric), keep_in_memory=True)
    return module.compute(**columns)
