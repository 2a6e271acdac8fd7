"""Old against new: each method is a point, as in figures 3 to 5 of arXiv 2501.05559."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sfa_hf.reports.comparison import drawing
from sfa_hf.reports.comparison.families import families
from sfa_hf.reports.comparison.view import Comparison, Method


def plot_plane(comparison: Comparison, path: Path) -> bool:
    """Draw the score on past tasks against the score on the newest one; False if there is no past task."""
    if not comparison.past:
        return False
    canvas = Canvas(figsize=(9.5, 6), layout="constrained")
    axis = canvas.subplots()
    _draw_references(axis, comparison)
    _draw_methods(axis, comparison)
    axis.set_xlabel(drawing.new_label(comparison))
    axis.set_ylabel(drawing.past_label(comparison))
    axis.margins(0.08)
    axis.grid(alpha=0.25)
    canvas.legend(loc="outside right upper", fontsize=8)
    drawing.save(canvas, path)
    return True


def _draw_methods(axis: Axes, comparison: Comparison) -> None:
    plane, in_lines = drawing.old_and_new(comparison), list[Method]()
    place = count()
    for index, family in enumerate(families(comparison)):
        lines = family.lines(family.second)
        for line, color in zip(lines, drawing.shades(len(lines), index), strict=True):
            drawing.draw_line(axis, plane, line, color, next(place))
        in_lines += family.methods
    alone = [method for method in comparison.methods if method not in in_lines]
    for index, method in enumerate(alone):
        style = drawing.MARKERS[index % len(drawing.MARKERS)]
        drawing.draw_points(
            axis, plane, [method], drawing.Look(method.label, drawing.single_color(index), style)
        )


def _draw_references(axis: Axes, comparison: Comparison) -> None:
    """Draw the base model, and the scores of each task learned without any loss."""
    plane = drawing.old_and_new(comparison)
    new, past = plane.x_scale, plane.y_scale
    base = comparison.found["base"]
    corner = (new * base[-1], past * sum(base[:-1]) / len(base[:-1]))
    axis.plot(*corner, "+", color=drawing.REFERENCE, markersize=12, label="before any training", linestyle="")
    if (reference := _without_loss(comparison)) is None:
        return
    method, words = reference
    learned = [method.figures[f"learned.{task}"].mean for task in comparison.tasks]
    axis.axvline(
        new * learned[-1], color=drawing.REFERENCE, linestyle="--", linewidth=1, zorder=0, label=words
    )
    axis.axhline(
        past * sum(learned[:-1]) / len(learned[:-1]),
        color=drawing.REFERENCE,
        linestyle="--",
        linewidth=1,
        zorder=0,
    )


def _without_loss(comparison: Comparison) -> tuple[Method, str] | None:
    """Return the method that shows what can be learned of each task, and its label in the plot."""
    if (single := comparison.named("single_task")) is not None:
        return single, "each task alone (single_task)"
    if (plain := comparison.named("sequential")) is not None:
        return plain, "when just learned (sequential)"
    return None
