"""Locks that a killed process leaves where DeepSpeed's ops are built, and for which the next one waits."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

_logger = logging.getLogger(__name__)


def warn_of_build_locks() -> None:
    """Name each lock: torch waits for it without a word, and for ever if its owner was killed."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in sorted(root.glob("**/lock")):
        _logger.warning(
            "%s: another process is building or loading this op, or was killed at it: then this one would "
            "wait for ever; delete the file",
            lock,
        )
