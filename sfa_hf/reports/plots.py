"""The plot of each task's score over the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sfa_hf.reports.run import Run

LINE_STYLES = ("-", "--", ":", "-.")


def plot_scores(runs: Sequence[Run], path: Path) -> None:
    """Draw one panel per task: its score after each stage with standard errors, one line per run."""
    tasks = runs[0].tasks
    figure = Figure(figsize=(3.6 * len(tasks), 3.2), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for column, (task, axis) in enumerate(zip(tasks, axes, strict=True)):
        for index, run in enumerate(runs):
            axis.errorbar(
                range(len(run.scores)),
                [row[column] for row in run.scores],
                yerr=[row[column] for row in run.results["stderr"]],
                linestyle=LINE_STYLES[index % len(LINE_STYLES)],
                marker="o",
                capsize=3,
                label=run.title,
            )
        axis.axvspan(column, column + 1, color="0.92", zorder=0)  # while this task is trained
        axis.set_title(f"{task} ({runs[0].results['metrics_used'][task]})")
        axis.set_xticks(range(len(tasks) + 1), ["start", *tasks])
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("score")
    axes[-1].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
