"""Whole folders that other runs depend on: written beside their place, and seen there whole or not at all.

One process writes into :func:`new_folder`; ranks that write one folder together agree on :func:`aside`, and
one of them calls :func:`put_in_place` at the end.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sfa_hf.files.atomic import LEFTOVER_SUFFIX, sync_file, sync_folder
from sfa_hf.files.locks import release, try_lock


def aside(final: Path) -> Path:
    """Where the ranks of one launch write a file or folder until it is whole, the same path on each."""
    return final.with_name(f".{final.name}{LEFTOVER_SUFFIX}")


def put_in_place(written: Path, final: Path) -> None:
    """Give a folder its name, in place of an older one, once everything in it is on the disk."""
    for path in written.rglob("*"):
        sync_file(path)
    sync_folder(written)
    older = aside(final.with_name(f"{final.name}.old"))
    shutil.rmtree(older, ignore_errors=True)
    if final.exists():
        final.rename(older)
    written.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(older, ignore_errors=True)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Give a folder that is put in place as ``final`` when the body ends, and vanishes when it fails.

    What killed processes left of earlier ones is removed; one that another process is still writing is not.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{final.name}.new-"
    for left in final.parent.glob(f"{glob.escape(prefix)}*{LEFTOVER_SUFFIX}"):
        with suppress(FileNotFoundError), _locked(left) as ours:
            if ours:
                shutil.rmtree(left, ignore_errors=True)
    written = Path(tempfile.mkdtemp(dir=final.parent, prefix=prefix, suffix=LEFTOVER_SUFFIX))
    written.chmod(0o755)  # mkdtemp's is the owner's alone
    with _locked(written):
        try:
            yield written
            put_in_place(written, final)
        except BaseException:
            shutil.rmtree(written, ignore_errors=True)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder is this process's; false where another holds it, or the file system has no locks."""
    descriptor, ours = os.open(folder, os.O_RDONLY), False
    try:
        with suppress(OSError):
            ours = try_lock(descriptor)
        yield ours
    finally:
        release(descriptor)
