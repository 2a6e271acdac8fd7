"""Plug-ins of a test: files beside those of the package, for as long as the test runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def code_of(page: str, heading: str) -> str:
    """The first block of Python below a heading of a page."""
    section = (DOCS / page).read_text().split(f"\n## {heading}")[1]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


@contextmanager
def plugged(package: str, name: str, code: str, known: Callable[..., Any], folder: Path) -> Iterator[None]:
    """Have ``known`` find ``package.name`` with this code, from a folder of the test's own."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / f"{name}.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        home = import_module(package)
        patch.setattr(home, "__path__", [*home.__path__, str(folder / "plugins")])
        known.cache_clear()
        try:
            yield
        finally:
            known.cache_clear()
            sys.modules.pop(f"{package}.{name}", None)
            vars(home).pop(name, None)
