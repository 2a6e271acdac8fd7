"""Scores as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sfa_hf.evaluation.run_comparison import TaskComparison
from sfa_hf.evaluation.score import TaskScore
from sfa_hf.reports.table import aligned


def score_table(scores: Sequence[TaskScore]) -> str:
    """One line a task: primary metric ± standard error, rows, and the other metrics."""
    lines = [("task", "metric", "score", "rows", "also")]
    for each in scores:
        also = " ".join(f"{name}={value:.4g}" for name, value in each.metrics.items() if name != each.metric)
        lines.append((each.task, each.metric, f"{each.value:.4f} ± {each.stderr:.4f}", str(each.rows), also))
    return "\n".join(aligned(lines))


def comparison_table(tasks: Sequence[TaskComparison]) -> str:
    """One line a task: both means, their difference with its interval, and the rows lost and gained.

    Behind a number of rows stands the share of all rows that guessing does not explain.
    """
    header = ("task", "before", "after", "difference", "95 % interval", "p", "rows", "1 -> 0", "0 -> 1")
    return "\n".join(aligned([header, *map(_cells, tasks)]))


def _cells(each: TaskComparison) -> tuple[str, ...]:
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
