"""comparison.md, plots and report.html (one self-contained page) of a comparison."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfa_hf.files.atomic import write_atomic
from sfa_hf.reports.comparison.curves import plot_curves
from sfa_hf.reports.comparison.frontier import plot_frontier
from sfa_hf.reports.comparison.plane import plot_plane
from sfa_hf.reports.comparison.table import comparison_tables, heading, markdown
from sfa_hf.reports.comparison.view import Comparison, read_comparison

PLOTS = {"plane": plot_plane, "frontier": plot_frontier, "curves": plot_curves}


@dataclass(frozen=True)
class Plot:
    """A plot: its name and its PNG in base64."""

    name: str
    data: str


def write_comparison_report(folder: Path) -> Path:
    """Write comparison.md, plots/ and report.html from the folder's comparison.json.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: comparison.json is missing or damaged.
    """
    comparison = read_comparison(folder)
    write_atomic(folder / "comparison.md", markdown(comparison))
    path = folder / "report.html"
    write_atomic(path, _page(comparison, list(_plots(comparison, folder / "plots"))))
    return path


def _plots(comparison: Comparison, folder: Path) -> Iterator[Plot]:
    for name, draw in PLOTS.items():
        path = folder / f"{name}.png"
        if draw(comparison, path):
            yield Plot(name, base64.b64encode(path.read_bytes()).decode("ascii"))


def _page(comparison: Comparison, plots: list[Plot]) -> str:
    pages = Environment(
        loader=PackageLoader("sfa_hf.reports", "."), autoescape=True, undefined=StrictUndefined
    )
    return pages.get_template("comparison.html.j2").render(
        title=f"{' → '.join(comparison.tasks)}: {len(comparison.methods)} methods",
        heading=heading(comparison),
        comparison=comparison,
        tables=comparison_tables(comparison),
        plots={plot.name: plot.data for plot in plots},
    )
