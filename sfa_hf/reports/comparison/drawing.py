"""Shared parts of the plots of a comparison: colours, points with the spread of their seeds, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sfa_hf.reports.comparison.families import Line, shown, symbol
from sfa_hf.reports.comparison.view import Comparison, Figure, Method

Color = tuple[float, float, float, float] | str

MARKERS = "sD^vP*X<>hdp"
MAPS = ("viridis", "autumn", "winter", "copper")
"""Colour maps of the families of methods, in order; the lines of a family are shades of its map."""
_SIDES = ((1, 1), (-1, -1), (-1, 1), (1, -1))
"""Sides of a point: right or left, above or below."""
REFERENCE = "0.45"
"""Grey, for the references that methods are compared with."""
_GREY = 7
"""Index of the grey among the ten colours of matplotlib; it is not used."""


def shades(count: int, family: int) -> list[Color]:
    """Return the colours of a family's lines."""
    if count == 1:
        return [mpl.colormaps["Dark2"]((family + 2) % 8)]
    colors = mpl.colormaps[MAPS[family % len(MAPS)]]
    return [colors(0.85 * index / max(1, count - 1)) for index in range(count)]


def single_color(index: int) -> Color:
    """Return the colour of a method that belongs to no family."""
    places = [place for place in range(10) if place != _GREY]
    return mpl.colormaps["tab10"](places[index % len(places)])


@dataclass(frozen=True)
class Plane:
    """The figures on the axes of a plot, and the factors they are multiplied by."""

    x: str
    y: str
    x_scale: float
    y_scale: float

    def holds(self, method: Method) -> bool:
        return self.x in method.figures and self.y in method.figures


@dataclass(frozen=True)
class Look:
    """How points are drawn; ``style`` is a format of matplotlib, e.g. "o-"."""

    label: str
    color: Color
    style: str


def draw_line(axis: Axes, plane: Plane, line: Line, color: Color, place: int) -> None:
    """Connect the points of a line and write the value of the option beside each.

    Args:
        axis: axis to draw on.
        plane: figures on its axes.
        line: line to draw.
        color: colour of the line.
        place: index of the line; it selects the side of the points where the values are written.
    """
    points = [method for method in line.methods if plane.holds(method)]
    if not points:
        return
    label = f"{line.title} ({symbol(line.option)} at the points)"
    draw_points(axis, plane, points, Look(label, color, "o-" if len(points) > 1 else "o"))
    across, upwards = _SIDES[place % len(_SIDES)]
    for method in points:
        axis.annotate(
            shown(method.options[line.option]),
            (plane.x_scale * method.figures[plane.x].mean, plane.y_scale * method.figures[plane.y].mean),
            xytext=(5 * across, 5 * upwards),
            textcoords="offset points",
            horizontalalignment="left" if across > 0 else "right",
            verticalalignment="bottom" if upwards > 0 else "top",
            fontsize=7,
            color=color,
        )


def draw_points(axis: Axes, plane: Plane, methods: Sequence[Method], look: Look) -> None:
    """Draw points at the means over seeds, with bars from the lowest seed to the highest."""
    across, up = ([method.figures[name] for method in methods] for name in (plane.x, plane.y))
    axis.errorbar(
        [plane.x_scale * each.mean for each in across],
        [plane.y_scale * each.mean for each in up],
        xerr=_bars(across, plane.x_scale),
        yerr=_bars(up, plane.y_scale),
        fmt=look.style,
        color=look.color,
        label=look.label,
        markersize=5,
        linewidth=1.2,
        elinewidth=0.7,
        capsize=2,
    )


def _bars(figures: Sequence[Figure], scale: float) -> list[list[float]]:
    below, above = zip(*(figure.spread for figure in figures), strict=True)
    return [[scale * each for each in below], [scale * each for each in above]]


def past_label(comparison: Comparison) -> str:
    """Return the label of an axis with the scores on past tasks."""
    tasks = " and ".join(comparison.past)
    mean = "mean score on" if len(comparison.past) > 1 else "score on"
    return f"{mean} {tasks} ({comparison.unit(comparison.past)})"


def new_label(comparison: Comparison) -> str:
    """Return the label of an axis with the scores on the newest task."""
    return f"score on {comparison.tasks[-1]}, the newest task ({comparison.unit(comparison.tasks[-1:])})"


def old_and_new(comparison: Comparison) -> Plane:
    """Return the plane with the score on the newest task as x and that on the past tasks as y."""
    return Plane("new", "past", comparison.scale(comparison.tasks[-1:]), comparison.scale(comparison.past))


def save(canvas: Canvas, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=130)
