"""Past scores against new scores, and against the displacement of the weights."""

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
"""With this many lines or more, the plot has several rows."""

Row = list[tuple[Line, drawing.Color]]


def plot_frontier(comparison: Comparison, path: Path) -> bool:
    """Draw the lines of each family along its strength; False if no method has several strengths."""
    found = [family.lines(family.strength) for family in families(comparison)]
    if not found or not comparison.past:
        return False
    rows = _rows(found)
    methods = [method for lines in found for line in lines for method in line.methods]
    has_displacement = any("displacement" in method.figures for method in methods)
    canvas = Canvas(figsize=(13 if has_displacement else 8, 0.8 + 4.8 * len(rows)), layout="constrained")
    axes = canvas.subplots(len(rows), 1 + has_displacement, sharex="col", sharey="row", squeeze=False)
    for pair, (title, row) in zip(axes, rows.items(), strict=True):
        _draw_row(pair, comparison, row)
        pair[0].set_title(title, loc="left", fontsize=10)
        pair[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8)
    axes[-1][0].set_xlabel(drawing.new_label(comparison))
    if has_displacement:
        axes[-1][1].set_xlabel("displacement of the weights in a task, relative to sequential")
    drawing.save(canvas, path)
    return True


def _rows(found: list[list[Line]]) -> Mapping[str, Row]:
    """Return one row, or with many lines one row for each value of the option that separates most of them.

    Lines without the option, or with a value that no other line has, come last, in their own row.
    """
    options = Counter(option for lines in found for line in lines for option in line.others)
    if sum(map(len, found)) < _CROWDED or not options:
        return {"": list(_shaded(found))}
    option = options.most_common(1)[0][0]
    every = [line for lines in found for line in lines]
    values = sorted({line.others[option] for line in every if option in line.others})
    colors = _colors_across_rows(found, option)
    rows = {
        f"{symbol(option)} = {value:g}": [
            (line, colors[line.title]) for line in every if line.methods[0].options.get(option) == value
        ]
        for value in values
    }
    without = [line for line in every if line.methods[0].options.get(option) not in values]
    names = ", ".join(dict.fromkeys(line.methods[0].name for line in without))
    return rows | ({names: [(line, colors[line.title]) for line in without]} if without else {})


def _shaded(found: list[list[Line]]) -> Iterator[tuple[Line, drawing.Color]]:
    """Yield lines with colours; the lines of a family are shades of one colour."""
    for index, lines in enumerate(found):
        yield from zip(lines, drawing.shades(len(lines), index), strict=True)


def _colors_across_rows(found: list[list[Line]], option: str) -> dict[str, drawing.Color]:
    """Return colours by title; lines that differ only in the option of the rows have one colour."""
    places: dict[str, int] = {}
    colors: dict[str, drawing.Color] = {}
    for family, lines in enumerate(found):
        for line in lines:
            rest = {key: value for key, value in line.others.items() if key != option}
            place = places.setdefault(f"{family} {rest}", len(places))
            colors[line.title] = drawing.single_color(place)
    return colors


def _draw_row(axes: Sequence[Axes], comparison: Comparison, row: Row) -> None:
    left = drawing.old_and_new(comparison)
    right = replace(left, x="displacement", x_scale=1.0)
    for axis, plane in zip(axes, (left, right), strict=False):
        for place, (line, color) in enumerate(row):
            drawing.draw_line(axis, plane, line, color, place)
        _draw_plain(axis, comparison, plane)
        axis.margins(0.08)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(drawing.past_label(comparison))


def _draw_plain(axis: Axes, comparison: Comparison, plane: drawing.Plane) -> None:
    """Draw plain fine-tuning, the end of every line whose strength goes to zero."""
    plain = comparison.named("sequential")
    if plain is not None and plane.holds(plain):
        drawing.draw_points(axis, plane, [plain], drawing.Look(plain.label, drawing.REFERENCE, "X"))
