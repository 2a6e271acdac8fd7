"""What keeping costs: past scores against new ones, and against how far the weights moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sfa_hf.reports.comparison import drawing
from sfa_hf.reports.comparison.families import Line, families
from sfa_hf.reports.comparison.view import Comparison


def plot_frontier(comparison: Comparison, path: Path) -> bool:
    """Draw each family's lines along its strength; False where no method is there at several strengths."""
    lines = list(_lines(comparison))
    if not lines or not comparison.past:
        return False
    has_displacement = any("displacement" in each.figures for line, _ in lines for each in line.methods)
    canvas = Canvas(figsize=(13 if has_displacement else 8, 5.6), layout="constrained")
    axes = canvas.subplots(1, 2 if has_displacement else 1, sharey=True, squeeze=False)[0]
    left = drawing.old_and_new(comparison)
    right = replace(left, x="displacement", x_scale=1.0)
    for axis, plane in zip(axes, (left, right), strict=False):
        for place, (line, color) in enumerate(lines):
            drawing.draw_line(axis, plane, line, color, place)
        _draw_plain(axis, comparison, plane)
        axis.margins(0.08)
        axis.grid(alpha=0.25)
    axes[0].set_xlabel(drawing.new_label(comparison))
    axes[0].set_ylabel(drawing.past_label(comparison))
    if has_displacement:
        axes[1].set_xlabel("displacement of the weights in a task, relative to sequential")
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside right upper", fontsize=8)
    drawing.save(canvas, path)
    return True


def _lines(comparison: Comparison) -> Iterator[tuple[Line, drawing.Color]]:
    for index, family in enumerate(families(comparison)):
        lines = family.lines(family.strength)
        yield from zip(lines, drawing.shades(len(lines), index), strict=True)


def _draw_plain(axis: Axes, comparison: Comparison, plane: drawing.Plane) -> None:
    """Plain fine-tuning, where every line ends whose strength goes to nothing."""
    plain = comparison.named("sequential")
    if plain is not None and plane.holds(plain):
        drawing.draw_points(axis, plane, [plain], drawing.Look(plain.label, drawing.REFERENCE, "X"))
