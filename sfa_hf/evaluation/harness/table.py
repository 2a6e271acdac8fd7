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
        for metric, value in scores.items():
            if "," in metric and "_stderr," not in metric and isinstance(value, float):
                stderr = scores.get(metric.replace(",", "_stderr,", 1))
                error = f" ± {stderr:.4f}" if isinstance(stderr, float) else ""
                lines.append((task, metric, f"{value:.4f}{error}", rows, shots))
    return "\n".join(aligned(lines))
