"""The content of comparison.json, for tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_json
from sfa_hf.reports.run import FRACTIONS

_UNITS = {"nll": "minus nats per token"}
"""Units of the metrics that are not called by their names."""


@dataclass(frozen=True)
class Figure:
    """A mean over seeds with its 95 % interval, which is None with one seed."""

    mean: float
    low: float | None
    high: float | None
    values: dict[str, float]

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None else self.mean - self.low

    @property
    def spread(self) -> tuple[float, float]:
        """Distances of the lowest and the highest seed from the mean."""
        below, above = self.mean - min(self.values.values()), max(self.values.values()) - self.mean
        return max(0.0, below), max(0.0, above)  # equal seeds differ from their mean by its rounding


@dataclass(frozen=True)
class Method:
    """The figures of one method.

    Attributes:
        label: label in tables and plots.
        options: all of its options, with ``name``.
        seeds: seeds of its runs.
        figures: figures by name, see sfa_hf/comparison/measures.py.
        difference: difference of its average from that of the reference, paired by seed; None if there is
            none.
    """

    label: str
    options: dict[str, Any]
    seeds: list[int]
    figures: dict[str, Figure]
    difference: Figure | None

    @property
    def name(self) -> str:
        return str(self.options["name"])


@dataclass(frozen=True)
class Comparison:
    """The folder of a comparison and the content of its comparison.json."""

    folder: Path
    found: dict[str, Any]
    methods: list[Method]

    @property
    def tasks(self) -> list[str]:
        return list(self.found["tasks"])

    @property
    def past(self) -> list[str]:
        """All tasks but the newest."""
        return self.tasks[:-1]

    def metric(self, task: str) -> str:
        return str(self.found["metrics_used"][task])

    def scale(self, tasks: Sequence[str]) -> float:
        """Return the factor that a score over these tasks is shown with: 100 if all are fractions, else 1."""
        return 100.0 if all(self.metric(task) in FRACTIONS for task in tasks) else 1.0

    def unit(self, tasks: Sequence[str]) -> str:
        """Return the unit of a score over these tasks, for an axis, e.g. "accuracy, %"."""
        metrics = sorted({self.metric(task) for task in tasks})
        shown = [_UNITS.get(metric, metric.replace("_", " ")) for metric in metrics]
        return " and ".join(shown) + (", %" if self.scale(tasks) == 100 else "")

    def named(self, name: str) -> Method | None:
        """Return the first method of this name."""
        return next((method for method in self.methods if method.name == name), None)


def read_comparison(folder: Path) -> Comparison:
    """Read the figures of a comparison.

    Raises:
        ConfigError: comparison.json is missing or damaged.
    """
    path = folder / "comparison.json"
    if not path.is_file():
        raise ConfigError(str(folder), "has no comparison.json", "a comparison with a finished run")
    found = read_json(path, "run the comparison again: it rewrites the file")
    return Comparison(folder, found, [_method(each) for each in found["methods"]])


def _method(found: dict[str, Any]) -> Method:
    return Method(
        label=found["label"],
        options=found["method"],
        seeds=found["seeds"],
        figures={name: Figure(**values) for name, values in found["figures"].items()},
        difference=None if found["difference"] is None else Figure(**found["difference"]),
    )
