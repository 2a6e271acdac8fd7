"""Which rows a source keeps: its ``where`` and its ``only_if``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sfa_hf.errors import ConfigError, nearest
from sfa_hf.tasks.templates import Condition, MissingColumnError, NullColumnError


@dataclass(frozen=True)
class PlacedRow:
    """A row of a source.

    Attributes:
        place: file and number from 1, for errors: "rows.jsonl row 3".
        index: position from 0 among the rows of the source's ``path`` and ``split``.
        columns: its values by name.
    """

    place: str
    index: int
    columns: dict[str, Any]


def holding_values(rows: Iterable[PlacedRow], where: Mapping[str, Any], key: str) -> Iterator[PlacedRow]:
    """The rows whose columns have the values of ``where``.

    Raises:
        ConfigError: it speaks of a column that a row does not have.
    """
    wanted = {column: value if isinstance(value, list) else [value] for column, value in where.items()}
    for row in rows:
        for column in wanted:
            if column not in row.columns:
                problem = f"{row.place} has no such column"
                raise ConfigError(f"{key}.where.{column}", problem, nearest(column, row.columns))
        if all(row.columns[column] in values for column, values in wanted.items()):
            yield row


def holding(rows: Iterable[PlacedRow], expression: str, key: str) -> Iterator[PlacedRow]:
    """The rows for which ``expression`` holds.

    Besides the columns it may speak of ``index``, the row's, and of ``loop.index``, which counts from 1 as in
    a loop of Jinja.

    Raises:
        ConfigError: it speaks of a column that a row does not have, or fails on a row.
    """
    condition = Condition(expression)
    for row in rows:
        counters = {"index": row.index, "loop": {"index": row.index + 1, "index0": row.index}}
        try:
            kept = condition.holds({**counters, **row.columns})
        except (MissingColumnError, NullColumnError) as err:
            problem = f"{row.place} has no value in column '{err}'"
            raise ConfigError(f"{key}.only_if", problem, f"its columns: {', '.join(row.columns)}") from None
        except ValueError as err:
            right = "an expression that fits every row"
            raise ConfigError(f"{key}.only_if", f"{row.place}: it {err}", right) from None
        if kept:
            yield row
