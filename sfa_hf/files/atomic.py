"""Small files that other runs depend on: replaced whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_WORDS = (
    *(os.strerror(code) for code in _NO_ROOM),
    # torch.save, when a write, its flush and its end fail
    "PytorchStreamWriter failed",
    "iostream error",
    "unexpected pos",
)
_HASH = "sha256"
_BLOCK_BYTES = 2**20
LEFTOVER_SUFFIX = ".tmp"
"""Ends, behind a dot at the start, the names of files and folders that are not whole yet."""


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``: a reader, or a crash at any moment, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=LEFTOVER_SUFFIX)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def is_leftover(path: Path) -> bool:
    """Whether a crash left this of a file or folder that did not have its name yet."""
    return path.name.startswith(".") and path.suffix == LEFTOVER_SUFFIX


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity, which JSON lacks, are an error."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, right: str) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        ConfigError: the file is not whole JSON; ``right`` says what the user can do.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(str(path), f"is not valid JSON ({error})", right) from error


def write_checked(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object with its own hash beside its keys, for :func:`read_checked`."""
    write_json(path, {**values, _HASH: _json_hash(values)})


def read_checked(path: Path, right: str) -> dict[str, Any]:
    """Read what :func:`write_checked` wrote.

    Raises:
        ConfigError: it is not there, torn, or has changed since; ``right`` says what the user can do.
    """
    if not path.is_file():
        raise ConfigError(str(path), "is missing", right)
    values = read_json(path, right)
    if not isinstance(values, dict) or values.pop(_HASH, None) != _json_hash(values):
        raise ConfigError(str(path), "has another content than when it was written", right)
    return values


def _json_hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    sync_file(folder)


def sync_file(path: Path) -> None:
    """Make what was written to ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(error: BaseException | None) -> str | None:
    """Say that a write failed for want of room, if that is what an exception, or its cause, comes from.

    Libraries that write for us report it in words of their own.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return f"{error.filename or 'output_dir'}: {error.strerror}"
        if text := next((words for words in _NO_ROOM_WORDS if words in str(error)), None):
            return f"output_dir: {text} ({type(error).__name__})"
        error = error.__cause__ or error.__context__
    return None


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
