"""Where the traceback of an error goes that nobody foresaw: a file, once for all processes of a launch."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

import psutil


def keep_traceback(error: BaseException, launch: str = "") -> Path | None:
    """Write the traceback of ``error`` to a file among the temporary ones.

    Args:
        error: whose traceback.
        launch: tells this launch from others of the same launcher, where that is known.

    Returns:
        The file; None where another process of this launch, on this machine, has written its own already.
    """
    text = "".join([*traceback.format_exception(error), f"\ncommand: {sys.argv}\n"])
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with suppress(FileExistsError):
        return _written(_name_of_launch(launch) if launched else None, text)
    return None


def _written(name: str | None, text: str) -> Path:
    if name is None:
        descriptor, path = tempfile.mkstemp(prefix="sfa_hf-traceback-", suffix=".txt")
    else:
        path = str(Path(tempfile.gettempdir(), name))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(path)


def _name_of_launch(launch: str) -> str:
    """The same in all processes that one launcher started together, and in no others."""
    parent = psutil.Process(os.getppid())
    attempt = launch or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"sfa_hf-traceback-{os.getuid()}-{parent.pid}-{parent.create_time():.2f}-{attempt}.txt"
