"""docs/configuration.md lists every key as it is declared."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from sfa_hf.commands.listing import Key, keys_of

DOCS = Path(__file__).parents[2] / "docs"


class Inner(BaseModel):
    """What is inside.

    Attributes:
        stop: a|b, or None.
    """

    stop: str = "\n\n"


class Outer(BaseModel):
    r"""What is outside.

    Attributes:
        beta: \beta.
        inner: not a row.
    """

    beta: float = Field(alias="b")
    inner: Inner = Inner()


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "write_tables.py"))


def test_a_row_for_each_key(script: dict[str, Any]) -> None:
    found = keys_of(Outer, "x")
    assert found == (
        Key("x.b", "number", None, "β."),
        Key("x.inner.stop", "text", r'"\n\n"', "a|b, or null."),
    )
    assert script["markdown"](found).splitlines()[2:] == [
        "| x.b | number | required | β. |",
        r'| x.inner.stop | text | `"\n\n"` | a\|b, or null. |',
    ]


def test_the_page_is_up_to_date(script: dict[str, Any]) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert script["with_tables"](page) == page, "make tables"


def test_every_key_has_a_meaning(script: dict[str, Any]) -> None:
    lines = [
        line for table in script["tables"]().values() for line in table.splitlines() if line.startswith("|")
    ]
    assert len(lines) > 150
    assert [line for line in lines if line.rstrip().endswith("|  |")] == []
