"""The one search for configs by name: beside what names them, under ./configs, among the shipped ones.

A wheel carries configs/ inside the package; in a checkout the folder lies beside the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from importlib.resources import files
from pathlib import Path
from typing import Literal

from sfa_hf.config.paths import expanded, shown
from sfa_hf.errors import ConfigError

Kind = Literal["sequences", "comparisons", "merges", "tasks"]
"""A folder of configs/."""

_SINGULAR: dict[Kind, str] = {
    "sequences": "config",
    "comparisons": "config",
    "merges": "recipe",
    "tasks": "task",
}
_SUFFIXES = (".yaml", ".yml")
_CLOSE = 0.5
"""Ratio of difflib from which on a name may have been meant."""


def shipped() -> Path:
    """The folder of the configs that come with the package."""
    package = Path(str(files("sfa_hf")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def folders(*kinds: Kind) -> list[Path]:
    """Where names of these kinds are looked for, in order."""
    return [folder for kind in kinds for folder in (Path("configs", kind), shipped() / kind)]


def names(places: Sequence[Path]) -> list[str]:
    """All names of configs in these folders, sorted: ``demo``, ``demo/math``."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in places
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES
    }
    return sorted(found)


def find_config(name: str, key: str, *kinds: Kind, beside: Sequence[Path] = ()) -> Path:
    """The file that ``name`` means.

    Args:
        name: a path, or a name with or without its suffix. A file of that path comes first, then the folder
            of each of ``beside``, then ``./configs/KIND`` and the shipped ones.
        key: the option or argument it was given as, for the error.
        kinds: which configs it may be one of, in order.
        beside: folders that belong to the config which names it.

    Raises:
        ConfigError: there is none; the text lists the names that there are, the nearest first.
    """
    given = Path(expanded(name, key))
    if given.exists() and not given.is_dir():
        return given
    places = [*beside, *folders(*kinds)]
    for folder in places:
        for suffix in ("", *_SUFFIXES):
            if (file := folder / f"{given}{suffix}").is_file():
                return file
    known = _listing(name, names(places))
    if given.suffix in _SUFFIXES:
        raise ConfigError(shown(str(given)), "cannot be read", f"there is no such file; {known}")
    raise ConfigError(key, f"there is no {_SINGULAR[kinds[0]]} '{shown(name)}'", known)


def _listing(name: str, known: Sequence[str]) -> str:
    def closeness(other: str) -> tuple[float, float]:
        """Of the last part or the whole, whichever is closer; then of the whole."""
        last, whole = (SequenceMatcher(None, name, each).ratio() for each in (Path(other).name, other))
        return max(last, whole), whole

    ordered = sorted(known, key=closeness, reverse=True)
    meant = f"did you mean '{ordered[0]}'? " if ordered and closeness(ordered[0])[0] >= _CLOSE else ""
    return f"{meant}known: {', '.join(ordered)}"
