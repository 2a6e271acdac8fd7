"""Which rows of a source count: its ``where``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sfa_hf.errors import ConfigError, nearest
from sfa_hf.tasks.config import Scalar
from sfa_hf.tasks.templates import Condition, MissingColumnError, NullColumnError

#: A row and its number in the source, from 1.
NumberedRow = tuple[int, dict[str, Any]]


def matching(
    rows: Iterable[NumberedRow], where: Mapping[str, Scalar | list[Scalar]] | str, key: str
) -> Iterator[NumberedRow]:
    """The rows that ``where`` keeps.

    Raises:
        ConfigError: it speaks of a column that a row does not have, or fails on a row.
    """
    return _holding(rows, Condition(where), key) if isinstance(where, str) else _equal(rows, where, key)


def _equal(
    rows: Iterable[NumberedRow], where: Mapping[str, Scalar | list[Scalar]], key: str
) -> Iterator[NumberedRow]:
    wanted = {column: value if isinstance(value, list) else [value] for column, value in where.items()}
    for number, row in rows:
        for column in wanted:
            if column not in row:
                raise ConfigError(
                    f"{key}.where.{column}", f"row {number} has no such column", nearest(column, row)
                )
        if all(row[column] in values for column, values in wanted.items()):
            yield number, row


def _holding(rows: Iterable[NumberedRow], condition: Condition, key: str) -> Iterator[NumberedRow]:
    for number, row in rows:
        try:
            kept = condition.holds(row)
        except (MissingColumnError, NullColumnError) as err:
            problem = f"row {number} has no value in column '{err}'"
            raise ConfigError(f"{key}.where", problem, f"its columns: {', '.join(row)}") from None
        except ValueError as err:
            raise ConfigError(
                f"{key}.where", f"row {number}: it {err}", "an expression that fits every row"
            ) from None
        if kept:
            yield number, row
