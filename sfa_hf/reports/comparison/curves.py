"""Scores during training, with merges marked, as in figure 2 of arXiv 2501.05559."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sfa_hf.reports.comparison import drawing
from sfa_hf.reports.comparison.view import Comparison

STYLES = ("-", "--", "-.", ":")
_TICK = 0.035
"""Height of the mark of a merge, as a fraction of the panel."""
_TICKS = 0.25
"""Largest total height of the marks of all methods, one above the other."""

Scores = Mapping[str, float]


@dataclass(frozen=True)
class _Line:
    """Scores of a method by step of the sequence, one mapping per seed; and the steps of its merges."""

    label: str
    points: dict[int, list[Scores]]
    merges: list[int]


def plot_curves(comparison: Comparison, path: Path) -> bool:
    """Draw the score of each task over the steps of the sequence; False if no run was scored in training."""
    curves = comparison.found["curves"]
    if not curves:
        return False
    tasks, steps = comparison.tasks, {task: _steps(task, curves) for task in comparison.tasks}
    starts = dict(zip(tasks, accumulate(steps.values(), initial=0), strict=False))
    lines = list(_lines(comparison, starts))
    canvas = Canvas(figsize=(10, 1.2 + 2.3 * len(tasks)), layout="constrained")
    axes = canvas.subplots(len(tasks), 1, sharex=True, squeeze=False)[:, 0]
    for task, axis in zip(tasks, axes, strict=True):
        for row, line in enumerate(lines):
            height = min(_TICK, _TICKS / len(lines))
            _draw(axis, line, task, comparison.scale([task]), row, height=height)
        axis.axvspan(starts[task], starts[task] + steps[task], color="0.93", zorder=0)
        axis.set_ylabel(f"{task}\n({comparison.unit([task])})", fontsize=9)
        axis.grid(alpha=0.25)
    axes[0].set_xlim(0, 1.01 * sum(steps.values()))
    axes[-1].set_xlabel(f"optimizer steps of the whole sequence: {' → '.join(tasks)}")
    handles, names = axes[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside right upper", fontsize=8)
    drawing.save(canvas, path)
    return True


def _lines(comparison: Comparison, starts: Mapping[str, int]) -> Iterator[_Line]:
    """Yield one line for each method scored in training, with the merges of its first seed."""
    for method in comparison.methods:
        own = [curve for curve in comparison.found["curves"] if curve["label"] == method.label]
        points: dict[int, list[Scores]] = {}
        for point in chain.from_iterable(curve["points"] for curve in own):
            points.setdefault(starts[point["task"]] + point["step"], []).append(point["scores"])
        if own:
            merges = [starts[merge["task"]] + merge["step"] for merge in own[0]["merges"]]
            yield _Line(method.label, dict(sorted(points.items())), merges)


def _draw(axis: Axes, line: _Line, task: str, scale: float, row: int, *, height: float) -> None:
    """A line, and a mark of this height, as a share of the panel, for each of its merges."""
    color, style = drawing.single_color(row), STYLES[row // 10 % len(STYLES)]
    means = [scale * fmean(scores[task] for scores in found) for found in line.points.values()]
    axis.plot(list(line.points), means, style, color=color, linewidth=1.4, marker=".", label=line.label)
    upwards = axis.get_xaxis_transform()
    axis.vlines(line.merges, row * height, (row + 1) * height, color=color, transform=upwards, linewidth=1.5)


def _steps(task: str, curves: Sequence[Mapping[str, Any]]) -> int:
    """Return T of a task; 0 if no run was scored in it."""
    points = chain.from_iterable(curve["points"] for curve in curves)
    return max((int(point["of"]) for point in points if point["task"] == task), default=0)
