"""Rows for which an expression holds: a source's ``only_if``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.tasks.templates import Condition, MissingColumnError, NullColumnError


def holding(
    rows: Iterable[tuple[int, dict[str, Any]]], expression: str, key: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered rows for which ``expression`` holds.

    Raises:
        ConfigError: it speaks of a column that a row does not have, or fails on a row.
    """
    condition = Condition(expression)
    for number, row in rows:
        try:
            kept = condition.holds(row)
        except (MissingColumnError, NullColumnError) as err:
            problem = f"row {number} has no value in column '{err}'"
            raise ConfigError(f"{key}.only_if", problem, f"its columns: {', '.join(row)}") from None
        except ValueError as err:
            right = "an expression that fits every row"
            raise ConfigError(f"{key}.only_if", f"row {number}: it {err}", right) from None
        if kept:
            yield number, row
