"""lm-eval's results as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfa_hf.reports.table import aligned


def lm_eval_table(found: Mapping[str, Any]) -> str:
    """One line a task and metric: value ± standard error, rows, worked examples."""
    lines = [("lm-eval task", "metric", "score", "rows", "few-shot")]
    for task, scores in found["results"].items():
        rows, shots = (str(found[key].get(task, "")) for key in ("rows", "num_fewshot"))
        lines += [
            (task, metric, f"{value:.4f}{_error(scores, metric)}", rows, shots)
            for metric, value in scores.items()
            if "," in metric and "_stderr," not in metric and isinstance(value, float)
        ]
    return "\n".join(aligned(lines))


def _error(scores: Mapping[str, Any], metric: str) -> str:
    value = scores.get(metric.replace(",", "_stderr,", 1))
    return f" ± {value:.4f}" if isinstance(value, float) else ""
