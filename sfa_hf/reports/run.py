"""One run, as read from results.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_json

# Metrics whose scores are fractions in [0, 1], shown in per cent; others are shown unchanged.
FRACTIONS = ("exact_match", "accuracy", "f1", "pass@1")

SUMMARY = {
    "average_accuracy": "average",
    "learning_accuracy": "when learned",
    "backward_transfer": "backward transfer",
    "forgetting": "forgetting",
    "forward_transfer": "forward transfer",
}


@dataclass(frozen=True)
class Run:
    """The results of a run folder.

    Attributes:
        folder: the run folder.
        results: content of results.json, as documented in docs/run-folder.md.
    """

    folder: Path
    results: dict[str, Any]

    @property
    def tasks(self) -> list[str]:
        return list(self.results["tasks"])

    @property
    def scores(self) -> list[list[float]]:
        return list(self.results["scores"])

    @property
    def stages(self) -> list[str]:
        """The stage of each row of the score matrix."""
        return ["before", *(f"after {task}" for task in self.tasks)][: len(self.scores)]

    @property
    def title(self) -> str:
        """The method, with the options that distinguish its runs."""
        method = self.results["method"]
        shown = [f"{key}={method[key]}" for key in ("beta", "p") if method.get(key) is not None]
        return " ".join([method["name"], *shown])

    @property
    def summary(self) -> list[tuple[str, str]]:
        """Name and value of each summary score; empty until the sequence is finished."""
        values = self.results["summary"] or {}
        return [
            (label, f"{values[key]:+.3f}") for key, label in SUMMARY.items() if values.get(key) is not None
        ]

    def score(self, row: int, column: int) -> str:
        """Return a score and its standard error, in per cent if the metric is a fraction."""
        value, error = self.scores[row][column], self.results["stderr"][row][column]
        if self.results["metrics_used"][self.tasks[column]] in FRACTIONS:
            return f"{100 * value:.1f} ±{100 * error:.1f}"
        return f"{value:.3f} ±{error:.3f}"


def read_run(folder: Path) -> Run:
    """Read the results of a run folder.

    Raises:
        ConfigError: results.json is missing or damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ConfigError(str(folder), "has no results.json", "a run folder with at least one score")
    return Run(folder, read_json(path, "run the sequence again: it rewrites the file"))
