"""Score matrices as text, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from sfa_hf.reports.run import Run

SUMMARY = {
    "average_accuracy": "average",
    "learning_accuracy": "when learned",
    "backward_transfer": "backward transfer",
    "forgetting": "forgetting",
    "forward_transfer": "forward transfer",
}


def side_by_side(runs: Sequence[Run]) -> str:
    """The score matrices of several runs, next to each other, with their summaries below."""
    blocks = [_block(run) for run in runs]
    widths = [max(map(len, block)) for block in blocks]
    rows = zip_longest(*blocks, fillvalue="")
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def summary_rows(run: Run) -> list[tuple[str, str]]:
    """Name and value of each summary score that the run has."""
    values = run.results["summary"] or {}
    return [(label, f"{values[key]:+.3f}") for key, label in SUMMARY.items() if values.get(key) is not None]


def _block(run: Run) -> list[str]:
    cells = [["", *run.tasks]] + [
        [stage, *(run.score(row, column) for column in range(len(run.tasks)))]
        for row, stage in enumerate(run.stages)
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    summary = [f"{label}: {value}" for label, value in summary_rows(run)]
    return [run.title, "-" * len(lines[0]), *lines, "", *summary]
