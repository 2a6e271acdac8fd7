"""Scores as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sfa_hf.evaluation.score import TaskScore


def score_table(scores: Sequence[TaskScore]) -> str:
    """One line a task: primary metric ± standard error, rows, and the other metrics."""
    lines = [("task", "metric", "score", "rows", "also")]
    lines += [
        (each.task, each.metric, f"{each.value:.4f} ± {each.stderr:.4f}", str(each.rows), _others(each))
        for each in scores
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _others(score: TaskScore) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in score.metrics.items() if name != score.metric)
