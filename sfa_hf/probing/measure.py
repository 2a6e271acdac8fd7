"""The measurements of one model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from sfa_hf.correction import feature_mismatch
from sfa_hf.evaluation import evaluate_task
from sfa_hf.probing.options import ProbeOptions
from sfa_hf.tasks import Scoring, Task, encode


def measure(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tasks: list[Task],
    ends: dict[str, nn.Module],
    options: ProbeOptions,
) -> dict[str, Any]:
    """Measure loss, score and distances of features on every task.

    Args:
        model: model of the point.
        tokenizer: its tokenizer.
        tasks: tasks to measure on.
        ends: models "a" and "b" to compare features with; empty for no comparison.
        options: options of the probe.

    Returns:
        The measurements by task name.
    """
    return {task.name: _on_task(model, tokenizer, task, ends, options) for task in tasks}


def _on_task(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    ends: dict[str, nn.Module],
    options: ProbeOptions,
) -> dict[str, Any]:
    by_surprise = task.scored_by(Scoring(kind="perplexity", metric="nll"))
    loss = evaluate_task(model, tokenizer, by_surprise, options.data, options.evaluation)
    score = evaluate_task(model, tokenizer, task, options.data, options.evaluation)
    found = {
        "loss": -loss.value,
        "loss_stderr": loss.stderr,
        "metric": score.metric,
        "score": score.value,
        "stderr": score.stderr,
        "rows": score.rows,
    }
    if options.features and ends:
        rows, _ = encode(task.heldout_rows(options.features.rows), tokenizer, options.data)
        distances = {
            end: feature_mismatch(model, other, rows, tokenizer, layer=options.features.layer)
            for end, other in ends.items()
        }
        found["mismatch"] = {end: asdict(distance) for end, distance in distances.items()}
    return found
