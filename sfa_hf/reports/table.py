"""Score matrices as text, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from sfa_hf.reports.run import Run


def side_by_side(runs: Sequence[Run]) -> str:
    """Return the score matrices of several runs side by side, with their summaries below."""
    blocks = [_block(run) for run in runs]
    widths = [max(map(len, block)) for block in blocks]
    rows = zip_longest(*blocks, fillvalue="")
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _block(run: Run) -> list[str]:
    cells = [["", *run.tasks]] + [
        [stage, *(run.score(row, column) for column in range(len(run.tasks)))]
        for row, stage in enumerate(run.stages)
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    summary = [f"{label}: {value}" for label, value in run.summary]
    return [run.title, "-" * len(lines[0]), *lines, "", *summary]
