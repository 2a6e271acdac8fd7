"""Cells as lines of text, and the score matrices of runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from sfa_hf.reports.run import Run


def aligned(rows: Sequence[Sequence[str]], *, left: int | None = None, gap: str = "  ") -> list[str]:
    """One line a row, each column as wide as its widest cell.

    Args:
        rows: cells, as many in each row.
        left: how many columns are aligned to the left, the others to the right; None: all of them.
        gap: between two columns.
    """
    widths = column_widths(rows)
    lefts = len(widths) if left is None else left
    padded = [
        [
            cell.ljust(width) if column < lefts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return [gap.join(row).rstrip() for row in padded]


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Characters of each column's widest cell."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def side_by_side(runs: Sequence[Run]) -> str:
    """Return the score matrices of several runs side by side, with their summaries below."""
    blocks = [_block(run) for run in runs]
    return "\n".join(aligned(list(zip_longest(*blocks, fillvalue="")), gap="   "))


def _block(run: Run) -> list[str]:
    scores = [
        [stage, *(run.score(row, column) for column in range(len(run.tasks)))]
        for row, stage in enumerate(run.stages)
    ]
    lines = aligned([["", *run.tasks], *scores], left=0)
    summary = [f"{label}: {value}" for label, value in run.summary]
    return [run.title, "-" * len(lines[0]), *lines, "", *summary]
