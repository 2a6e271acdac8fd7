"""report.html: one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfa_hf.files.atomic import write_atomic
from sfa_hf.reports.plots import plot_scores
from sfa_hf.reports.run import Run, read_run


def write_report(folder: Path, runs: Sequence[Path] = ()) -> Path:
    """Write report.html and plots/ into ``folder``, for its own run or for several ``runs`` side by side.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: the results.json of a run is missing or damaged.
    """
    found = [read_run(run) for run in (runs or [folder])]
    plot = folder / "plots" / "scores.png"
    plot_scores(found, plot)
    path = folder / "report.html"
    write_atomic(path, _page(found, plot))
    return path


def _page(runs: Sequence[Run], plot: Path) -> str:
    pages = Environment(
        loader=PackageLoader("sfa_hf.reports", "."), autoescape=True, undefined=StrictUndefined
    )
    return pages.get_template("report.html.j2").render(
        title=f"{' → '.join(runs[0].tasks)}: {', '.join(run.title for run in runs)}",
        runs=runs,
        plot=base64.b64encode(plot.read_bytes()).decode("ascii"),
    )
