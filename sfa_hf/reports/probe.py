"""Plots of a probe, made only from probe.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

CURVES = {"linear": ("straight line", "-", "o"), "fisher": ("weighted by optimizer states", "--", "s")}
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
LOSS = "loss, nats per token"
_ENDS = {"a": "A", "b": "B"}
_PANEL = (3.8, 2.9)

Value = Callable[[Mapping[str, Any]], float]


def plot_probe(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw path.png, and features.png if features were compared.

    Args:
        found: content of probe.json.
        folder: folder of the plots.

    Returns:
        The paths of the plots.
    """
    written = [_draw(found, folder / "path.png", _path_rows(found))]
    first = next(iter(next(iter(found["points"].values()))["tasks"].values()))
    if "mismatch" in first:
        written.append(_draw(found, folder / "features.png", _feature_rows()))
    return written


def _path_rows(found: Mapping[str, Any]) -> list[tuple[str, Value]]:
    metrics = {each["metric"] for point in found["points"].values() for each in point["tasks"].values()}
    score = f"score ({metrics.pop()})" if len(metrics) == 1 else "score"
    return [(LOSS, lambda at: at["loss"]), (score, lambda at: at["score"])]


def _feature_rows() -> list[tuple[str, Value]]:
    def to(end: str) -> Value:
        return lambda at: at["mismatch"][end]["relative"]

    return [(f"distance of features from those of {label}", to(end)) for end, label in _ENDS.items()]


def _draw(found: Mapping[str, Any], path: Path, rows: list[tuple[str, Value]]) -> Path:
    tasks = found["tasks"]
    size = (_PANEL[0] * len(tasks) + 1.6, _PANEL[1] * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(tasks), squeeze=False)
    for row, (label, value) in enumerate(rows):
        for column, task in enumerate(tasks):
            axis = grid[row][column]
            _panel(axis, found, task, value)
            if label == LOSS:  # beyond the ends it grows many times over
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(LogFormatter())
                axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.2, 0.5)))
            axis.set_title(task if row == 0 else "")
            axis.set_ylabel(label if column == 0 else "")
            axis.set_xlabel("weight of B" if row == len(rows) - 1 else "")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _panel(axis: Axes, found: Mapping[str, Any], task: str, value: Value) -> None:
    """Draw the curves of one task; a checkpoint beside the path is a horizontal line."""
    points = found["points"]
    for end in (0, 1):
        axis.axvline(end, color="0.8", linewidth=1, zorder=0)
    for (curve, (label, style, marker)), colour in zip(CURVES.items(), _COLOURS, strict=False):
        along = [each for each in points.values() if each["curve"] == curve]
        if along and curve != "linear":  # its ends are the straight line's
            along += [points[key] for key in ("linear 0", "linear 1") if key in points]
        along.sort(key=lambda each: each["alpha"])
        if along:
            axis.plot(
                [each["alpha"] for each in along],
                [value(each["tasks"][task]) for each in along],
                linestyle=style,
                marker=marker,
                markersize=4,
                color=colour,
                label=label,
            )
    beside = {key: each for key, each in points.items() if each["alpha"] is None}
    for (name, each), colour in zip(beside.items(), _COLOURS[len(CURVES) :] * len(beside), strict=False):
        axis.axhline(value(each["tasks"][task]), linestyle=":", color=colour, label=name)
    axis.grid(axis="y", alpha=0.3)
