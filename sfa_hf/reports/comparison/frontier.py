"""What keeping costs: past scores against new ones, and against how far the weights moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sfa_hf.reports.comparison import drawing
from sfa_hf.reports.comparison.families import Line, families, symbol
from sfa_hf.reports.comparison.view import Comparison

_CROWDED = 9
"""Lines from which on they are drawn in several rows."""

Families = list[list[Line]]
"""The lines of each family; a family keeps its place, and so its colours, in every row."""


def plot_frontier(comparison: Comparison, path: Path) -> bool:
    """Draw each family's lines along its strength; False where no method is there at several strengths."""
    found = [family.lines(family.strength) for family in families(comparison)]
    if not found or not comparison.past:
        return False
    rows = _rows(found)
    methods = [method for lines in found for line in lines for method in line.methods]
    has_displacement = any("displacement" in method.figures for method in methods)
    canvas = Canvas(figsize=(13 if has_displacement else 8, 0.8 + 4.8 * len(rows)), layout="constrained")
    axes = canvas.subplots(len(rows), 1 + has_displacement, sharex="col", sharey=True, squeeze=False)
    for pair, (title, lines) in zip(axes, rows.items(), strict=True):
        _draw_row(pair, comparison, lines)
        pair[0].set_title(title, loc="left", fontsize=10)
        pair[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8)
    axes[-1][0].set_xlabel(drawing.new_label(comparison))
    if has_displacement:
        axes[-1][1].set_xlabel("displacement of the weights in a task, relative to sequential")
    drawing.save(canvas, path)
    return True


def _rows(found: Families) -> Mapping[str, Families]:
    """One row; or of many lines one for each value of the option that tells most of them apart."""
    options = Counter(option for lines in found for line in lines for option in line.others)
    if sum(map(len, found)) < _CROWDED or not options:
        return {"": found}
    option = options.most_common(1)[0][0]
    values = sorted({line.others[option] for lines in found for line in lines if option in line.others})
    return {f"{symbol(option)} = {value:g}": _of(found, option, value) for value in values}


def _of(found: Families, option: str, value: float) -> Families:
    """The lines with that value, and those of methods without the option."""
    return [
        [line for line in lines if line.methods[0].options.get(option, value) == value] for lines in found
    ]


def _draw_row(axes: Sequence[Axes], comparison: Comparison, lines: Families) -> None:
    left = drawing.old_and_new(comparison)
    right = replace(left, x="displacement", x_scale=1.0)
    for axis, plane in zip(axes, (left, right), strict=False):
        for place, (line, color) in enumerate(_colored(lines)):
            drawing.draw_line(axis, plane, line, color, place)
        _draw_plain(axis, comparison, plane)
        axis.margins(0.08)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(drawing.past_label(comparison))


def _colored(found: Families) -> Iterator[tuple[Line, drawing.Color]]:
    for index, lines in enumerate(found):
        yield from zip(lines, drawing.shades(len(lines), index), strict=True)


def _draw_plain(axis: Axes, comparison: Comparison, plane: drawing.Plane) -> None:
    """Plain fine-tuning, where every line ends whose strength goes to nothing."""
    plain = comparison.named("sequential")
    if plain is not None and plane.holds(plain):
        drawing.draw_points(axis, plane, [plain], drawing.Look(plain.label, drawing.REFERENCE, "X"))
