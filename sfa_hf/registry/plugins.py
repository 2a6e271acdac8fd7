"""Finding plug-ins by importing the files of their folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

P = TypeVar("P")


def plugins(package: str, in_file: Callable[[ModuleType], Mapping[str, P]]) -> dict[str, P]:
    """Import the files of a package and return the plug-ins that they hold, by name.

    Each room keeps what was found: ``@cache def known_rules(): return plugins("sfa_hf.rules", ...)``.

    Args:
        package: its files are looked at, the packages inside it are not.
        in_file: gives the plug-ins of one file by name.

    Raises:
        RuntimeError: two plug-ins have one name.
    """
    known: dict[str, P] = {}
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if entry.ispkg:
            continue
        for name, plugin in in_file(importlib.import_module(f"{package}.{entry.name}")).items():
            if name in known:
                raise RuntimeError(f"two plug-ins of {package} are named {name!r}")
            known[name] = plugin
    return known


def classes(
    base: type, name: Callable[[Any], str | None] = lambda each: each.name
) -> Callable[[ModuleType], dict[str, Any]]:
    """Find the classes of a file that derive from ``base``; an abstract one is no plug-in.

    Args:
        base: the class that a plug-in derives from.
        name: gives a class's name; None for one that is no plug-in.
    """

    def in_file(module: ModuleType) -> dict[str, Any]:
        own = [
            each
            for each in vars(module).values()
            if inspect.isclass(each)
            and issubclass(each, base)
            and each.__module__ == module.__name__
            and not inspect.isabstract(each)
        ]
        return {named: each for each in own if (named := name(each)) is not None}

    return in_file
