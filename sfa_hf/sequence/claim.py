"""Which of several launches does a run: the first to lock its folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError
from sfa_hf.files.locks import locked


@contextmanager
def claimed(folder: Path) -> Iterator[str | None]:
    """Hold a run's folder, which need not be there, for this launch. A collective call.

    The first process holds the lock and decides for all.

    Yields:
        None; or who is at the run already.
    """
    with ExitStack() as stack:
        yield from_first_process(lambda: stack.enter_context(locked(folder)))


def in_use(folder: Path, holder: str) -> ConfigError:
    """The refusal of a folder that another launch works in."""
    right = "wait for it, or another output_dir"
    return ConfigError("output_dir", f"{folder} is in use by {holder}", right)
