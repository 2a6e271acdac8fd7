"""Scores as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sfa_hf.evaluation.run_comparison import TaskComparison
from sfa_hf.evaluation.score import TaskScore


def score_table(scores: Sequence[TaskScore]) -> str:
    """One line a task: primary metric ± standard error, rows, and the other metrics."""
    lines = [("task", "metric", "score", "rows", "also")]
    lines += [
        (each.task, each.metric, f"{each.value:.4f} ± {each.stderr:.4f}", str(each.rows), _others(each))
        for each in scores
    ]
    return aligned(lines)


def _others(score: TaskScore) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in score.metrics.items() if name != score.metric)


def comparison_table(tasks: Sequence[TaskComparison]) -> str:
    """One line a task: both means, their difference with its interval, and the rows lost and gained.

    Behind a number of rows stands the share of all rows that guessing does not explain.
    """
    header = ("task", "before", "after", "difference", "95 % interval", "p", "rows", "1 -> 0", "0 -> 1")
    return aligned([header, *map(_compared, tasks)])


def _compared(each: TaskComparison) -> tuple[str, ...]:
    found = each.difference
    lost = gained = "-"
    if each.moved is not None:
        lost = f"{each.moved.lost} ({each.moved.lost_beyond_chance(each.chance):.4f})"
        gained = f"{each.moved.gained} ({each.moved.gained_beyond_chance(each.chance):.4f})"
    return (
        each.task,
        f"{each.before:.4f}",
        f"{each.after:.4f}",
        f"{found.value:+.4f} ± {found.stderr:.4f}",
        f"{found.low:+.4f} ... {found.high:+.4f}",
        f"{found.p_value:.4f}",
        str(found.rows),
        lost,
        gained,
    )


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
