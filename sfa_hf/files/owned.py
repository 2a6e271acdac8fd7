"""Folders from which a program removes its own files and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Union

from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import is_leftover

Names = Mapping[str, Union["Names", Callable[[Path], "Names"], None]]
"""What a program writes into a folder: for each regular expression of a whole name, None for a file, or the
names in such a folder; a function tells them of a folder that says itself what is in it."""
_SHOWN = 5


def check_owned(folder: Path, names: Names, key: str) -> None:
    """See that a folder holds nothing but what ``names`` tells.

    Args:
        folder: that is there.
        names: of everything that may be in it.
        key: option that asks for the removal, for the error.

    Raises:
        ConfigError: something is not in ``names``, or is a symbolic link, as ``folder`` may be.
    """
    if folder.is_symlink():
        raise ConfigError(key, f"{folder} is a symbolic link", "the folder that it leads to")
    _owned(_below(folder, names), key)


def remove_owned(folder: Path, names: Names, key: str, last: str) -> None:
    """Remove a folder that holds nothing but what ``names`` tells, with the file ``last`` at the end.

    Raises:
        ConfigError: as :func:`check_owned`; nothing has been removed.
        OSError: something came in meanwhile; it is still there.
    """
    check_owned(folder, names, key)
    paths = [path for path, _ in _below(folder, names)]
    _remove(sorted(paths, key=lambda path: path == folder / last))  # the order is kept otherwise
    folder.rmdir()


def remove_known(folder: Path, names: Names, kept: Collection[Path], key: str) -> None:
    """Remove what ``names`` tells from a folder, and leave alone what else is in it, and ``kept``.

    Raises:
        ConfigError: a folder that would go holds something else; nothing has been removed.
    """
    found = [
        each
        for path in folder.iterdir()
        if path not in kept and not path.is_symlink() and _pattern(path, names) is not None
        for each in _below(folder, names, path)
    ]
    _remove(_owned(found, key))


def remove_files(folder: Path, names: Names) -> None:
    """Remove what ``names`` tells below a folder, and the folders that are empty then."""
    for path in [*(path for path, owned in _below(folder, names) if owned), folder]:
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.rmdir() if path.is_dir() else path.unlink()


def _owned(found: Iterable[tuple[Path, bool]], key: str) -> list[Path]:
    found = list(found)
    if strangers := [path for path, owned in found if not owned]:
        shown = ", ".join(map(_told, strangers[:_SHOWN]))
        more = f" and {len(strangers) - _SHOWN} more" if len(strangers) > _SHOWN else ""
        verb = "is" if len(strangers) == 1 else "are"
        right = "nothing was removed: move it away, or a new output_dir"
        raise ConfigError(key, f"{shown}{more} {verb} not a run's", right)
    return [path for path, _ in found]


def _told(path: Path) -> str:
    return f"{path} (a symbolic link)" if path.is_symlink() else str(path)


def _below(folder: Path, names: Names, only: Path | None = None) -> Iterator[tuple[Path, bool]]:
    """All that is below a folder, or one path in it with what is below that, contents first; is it known?"""
    for path in sorted(folder.iterdir()) if only is None else [only]:
        pattern, is_folder = _pattern(path, names), path.is_dir() and not path.is_symlink()
        inner = None if pattern is None else names[pattern]
        if is_folder and inner is not None:
            yield from _below(path, inner(path) if callable(inner) else inner)
        known = pattern is not None and is_folder == (inner is not None)
        yield path, known and not path.is_symlink()


def _pattern(path: Path, names: Names) -> str | None:
    """The pattern that the name fits, or, before it had its name, was going to fit."""
    parts = path.name[1:].split(".") if is_leftover(path) else []
    whole = [path.name, *(".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))]
    fitting = (pattern for name in whole for pattern in names if re.fullmatch(pattern, name))
    return next(fitting, None)
