"""Whole small files from strangers: no wait for a pipe, no read without a bound, no endless nesting."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError

_MOST_BYTES = 2**28
"""256 MiB: the largest tokenizer.json files have 40, the indexes of the largest models 10."""


def regular_bytes(path: Path, key: str, right: str, most: int = _MOST_BYTES) -> bytes:
    """A regular file's content.

    Args:
        path: the file.
        key: the config key that names it, for errors.
        right: what would be right, for errors.
        most: bytes that it may have.

    Raises:
        ConfigError: it cannot be read, is a pipe or a device, or is larger.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
            regular = stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
            content = opened.read(most + 1) if regular else b""
    except FileNotFoundError as error:
        raise ConfigError(key, f"{path.parent} has no {path.name}", right) from error
    except OSError as error:
        raise ConfigError(key, f"{path} cannot be read: {error.strerror}", right) from error
    if not regular:
        raise ConfigError(key, f"{path} is not a regular file", right)
    if len(content) > most:
        raise ConfigError(key, f"{path} has more than {most} bytes", right)
    return content


def json_object(path: Path, key: str, right: str) -> dict[str, Any]:
    """The object in a JSON file; see :func:`regular_bytes`.

    Raises:
        ConfigError: as there; or it is not JSON, or another value than an object.
    """
    try:
        value = json.loads(regular_bytes(path, key, right))
    except RecursionError as error:
        raise ConfigError(key, f"{path} is nested too deep", right) from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(key, f"{path} is not valid JSON ({error})", right) from error
    if not isinstance(value, dict):
        raise ConfigError(key, f"{path} holds no keys", right)
    return value
