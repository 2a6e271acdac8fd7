"""Paths that a user gives: ``~`` and ``$VARIABLES`` mean the same in each, and an output can be written."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from sfa_hf.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_SHOWN = 200


def expanded(path: str, key: str = "") -> str:
    """``path`` with ``~``, ``~user``, ``$NAME`` and ``${NAME}`` replaced, as a shell does.

    Args:
        path: of a file or folder; what is no path, such as a Hub id, comes back as it is.
        key: the option or argument it was given as, for the error; "" where the caller adds it.

    Raises:
        ConfigError: there is no such user or variable, or no file system has such a name.
    """
    if "\0" in path:
        raise ConfigError(key, f"{shown(path)} holds a NUL character", "a path")

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            problem = f"{shown(path)}: there is no environment variable {name}"
            raise ConfigError(key, problem, f"export {name}=..., or the whole path")
        return os.environ[name]

    whole = os.path.expanduser(_VARIABLE.sub(value, path))  # noqa: PTH111 - pathlib's drops "./" and a last "/"
    if whole.startswith("~") and not os.path.lexists(whole):
        problem = f"{shown(path)}: there is no user {whole[1:].partition('/')[0]}"
        raise ConfigError(key, problem, "~, ~USER of this machine, or the whole path")
    try:
        os.lstat(whole)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(key, f"{shown(whole)} is too long for a path", "a shorter one") from error
    return whole


UserPath = Annotated[str, AfterValidator(expanded)]
"""A field of a config that holds a path."""


def cache_folder() -> Path:
    """``$SFA_HF_CACHE``, else ``sfa_hf`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("SFA_HF_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(expanded(own, "SFA_HF_CACHE") if own else f"{expanded(shared, 'XDG_CACHE_HOME')}/sfa_hf")


def shown(path: str) -> str:
    """A path as an error shows it: printable, and not longer than a line or two."""
    text = path if path.isprintable() else repr(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def check_writable(key: str, folder: Path) -> None:
    """See that ``folder`` can be made, or be written to where it is there; nothing of it is made.

    Raises:
        ConfigError: it is a file, or below one; a loop of links; or its place cannot be written to.
    """
    try:
        place = _nearest(folder)
        if not place.is_dir():
            above = "" if place == folder.absolute() else f"cannot be made: {shown(str(place))} "
            problem = f"{shown(str(folder))} {above}is not a folder"
            raise ConfigError(key, problem, "a folder, or a path where one can be made")
        if not os.access(place, os.W_OK | os.X_OK):
            problem = f"{shown(str(folder))}: {shown(str(place))} is not writable"
            raise ConfigError(key, problem, "a place that you may write to")
        if place != folder.absolute():  # access() says yes to root even where nothing can be made
            tempfile.TemporaryDirectory(dir=place, prefix=".sfa_hf-").cleanup()
    except OSError as error:
        problem = f"{shown(str(folder))} cannot be written: {error.strerror}"
        raise ConfigError(key, problem, "a place with room to write") from error


def _nearest(path: Path) -> Path:
    """The path itself if there is something, else the nearest folder above it that is there.

    Raises:
        OSError: a link leads nowhere, or in a loop; or no file system has such a name.
    """
    place = path.absolute()
    while True:
        try:
            os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):  # noqa: PERF203 - a few times
            place = place.parent
        else:
            os.stat(place)  # noqa: PTH116 - what a link leads to
            return place
