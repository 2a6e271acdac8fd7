"""Locks that a killed process leaves where DeepSpeed's ops are built, and for which the next one waits."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.cpp_extension import get_default_build_root

_logger = logging.getLogger(__name__)


def build_locks() -> list[Path]:
    """The locks that lie where ops are built; each is of a build that goes on, or was killed."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    return sorted(root.glob("**/lock"))


def warn_of_build_locks(training: Mapping[str, Any]) -> None:
    """Name each lock to a run under DeepSpeed: torch waits for it in silence, even if its owner was killed.

    Args:
        training: The ``training`` section of the run's first task. Its ``deepspeed``, or a launch by
            ``accelerate launch`` with DeepSpeed, says that ops will be loaded.
    """
    if not training.get("deepspeed") and os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
        return
    for lock in build_locks():
        _logger.warning(
            "%s: another process is building or loading this op, or was killed at it: then this one would "
            "wait for ever; delete the file",
            lock,
        )
