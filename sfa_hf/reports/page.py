"""report.html: one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from sfa_hf.files import write_atomic
from sfa_hf.reports.plots import plot_scores
from sfa_hf.reports.run import Run, read_run
from sfa_hf.reports.table import summary_rows

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem } h3 { font-size: 1rem; margin-bottom: .3rem }
table { border-collapse: collapse; margin: .3rem 0 1rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd } th:first-child, td:first-child
{ text-align: left } .runs { display: flex; flex-wrap: wrap; gap: 2.5rem } img { max-width: 100% } .now { background:
#f1f1f1 } footer { color: #666; font-size: .85rem; margin-top: 2rem }
"""


def write_report(folder: Path, runs: Sequence[Path] = ()) -> Path:
    """Write report.html and plots/ into ``folder``, for its own run or for several ``runs`` side by side.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: a run has no whole results.json.
    """
    found = [read_run(run) for run in (runs or [folder])]
    plot = folder / "plots" / "scores.png"
    plot_scores(found, plot)
    path = folder / "report.html"
    write_atomic(path, _page(found, plot))
    return path


def _page(runs: Sequence[Run], plot: Path) -> str:
    first = runs[0].results
    title = f"{' → '.join(first['tasks'])}: {', '.join(run.title for run in runs)}"
    picture = base64.b64encode(plot.read_bytes()).decode("ascii")
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1><p>Model {escape(first['model'])}. Each row is a moment of the sequence, "
        "each column a task's score on its held-out rows, higher is better; shaded is the task just trained.</p>"
        f'<div class="runs">{"".join(map(_matrix, runs))}</div>'
        f'<h2>Scores over the sequence</h2><img alt="scores over the sequence" '
        f'src="data:image/png;base64,{picture}">'
        f"<h2>Merges</h2>{''.join(map(_merges, runs))}<h2>Cost</h2>{_costs(runs)}{_footer(runs)}</body></html>\n"
    )


def _matrix(run: Run) -> str:
    rows = []
    for row, stage in enumerate(run.stages):
        cells = "".join(
            f"<td{' class=now' if row == column + 1 else ''}>{escape(run.score(row, column))}</td>"
            for column in range(len(run.tasks))
        )
        rows.append(f"<tr><td>{escape(stage)}</td>{cells}</tr>")
    head = "".join(f"<th>{escape(task)}</th>" for task in run.tasks)
    summary = _table(("summary", ""), summary_rows(run))
    return (
        f"<section><h3>{escape(run.title)} (seed {run.results['seed']})</h3>"
        f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>{summary}</section>"
    )


def _merges(run: Run) -> str:
    merges = run.results["merges"]
    if not merges:
        return f"<p>{escape(run.title)}: none.</p>"
    rows = [
        (
            merge["task"],
            f"{merge['step']} of {merge['of']}",
            f"{merge['beta']:g}",
            f"{merge['drift_before']:.4g}",
            f"{merge['drift_after']:.4g}",
            f"{1000 * merge['seconds']:.1f}",
        )
        for merge in merges
    ]
    return f"<h3>{escape(run.title)}</h3>" + _table(
        ("task", "step", "β", "‖θ−θ₀‖ before", "after", "milliseconds"), rows
    )


def _costs(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        cost = run.results["cost"]
        seconds = [f"{cost.get(key, 0):.1f}" for key in ("train_seconds", "merge_seconds", "eval_seconds")]
        sizes = [
            f"{cost.get(key, 0) / 2**20:,.0f}"
            for key in ("peak_host_bytes", "peak_device_bytes", "stored_bytes")
        ]
        rows.append((run.title, *seconds, *sizes))
    return _table(
        ("run", "training s", "of which merging s", "evaluation s", "host MiB", "device MiB", "stored MiB"),
        rows,
    )


def _footer(runs: Sequence[Run]) -> str:
    first = runs[0].results
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return f"<footer>{first['world_size']} process(es), engine {escape(first['engine'])}; {escape(versions)}</footer>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{lines}</table>"
