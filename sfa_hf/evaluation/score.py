"""Scoring a live model on one task."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from sfa_hf.distributed.processes import from_first_process
from sfa_hf.evaluation.live import LiveModel
from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.records import write_records
from sfa_hf.evaluation.sandbox import box_for
from sfa_hf.evaluation.scoring.base import Asked, Job, Kind, no_number
from sfa_hf.evaluation.untouched import untouched
from sfa_hf.tasks.encoding import Encoding, end_ids
from sfa_hf.tasks.scorings import known_scorings
from sfa_hf.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskScore:
    """How well a model does on a task.

    Attributes:
        task: the task's name.
        metric: name of the primary metric.
        value: the primary metric, higher is better: in [0, 1] for accuracies, exact match, F1 and pass@1;
            minus the mean negative log-likelihood in nats a token for perplexity tasks.
        stderr: standard error of ``value`` over rows.
        rows: held-out rows scored, each once.
        metrics: every metric by name, the primary one's raw form among them, and ``prompts_cut``, the number
            of rows whose prompt was too long and lost its beginning.
    """

    task: str
    metric: str
    value: float
    stderr: float
    rows: int
    metrics: dict[str, float]


def evaluate_task(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    encoding: Encoding,
    options: EvaluationOptions,
    *,
    records_path: Path | None = None,
) -> TaskScore:
    """Score ``model`` on the held-out rows of ``task``.

    Called by every process of a launch, on the live model, between or after training steps: under plain
    training, DDP, ZeRO and FSDP2. The processes share the rows; the score is the same whatever their number.
    Training that goes on afterwards is not touched.

    Args:
        model: a causal language model; a data-parallel wrapper around it is looked through.
        tokenizer: its tokenizer.
        task: rows and how they are scored.
        encoding: how rows become tokens, as in training.
        options: how many rows, how large a batch.
        records_path: JSON Lines file for one record a row, written by the first process.

    Returns:
        The score, on every process.

    Raises:
        ConfigError: the task's rows, its scoring and the model do not go together; or the score is no number.
    """
    started = time.perf_counter()
    live = LiveModel(model, tokenizer)
    kind: Kind = known_scorings()[task.config.scoring.kind]
    rows = task.heldout_rows(options.limit, options.few_shot)
    live.end_ids = sorted({*live.end_ids, *end_ids(rows, tokenizer, encoding)})
    job = Job(task.name, rows, task.config.scoring, live, encoding, options)
    with untouched(live.model):
        asked = kind.ask(job)
        score = from_first_process(lambda: _judged(kind, job, asked, records_path))
    _log(score, time.perf_counter() - started)
    return score


def check_tasks(tasks: Sequence[Task], options: EvaluationOptions) -> None:
    """Refuse what this machine cannot score, before anything is trained.

    Raises:
        ConfigError: a task has programs to be run, and there is neither a sandbox nor leave to do without.
    """
    if any(task.config.scoring.kind == "code" for task in tasks):
        box_for(allow_unsandboxed=options.allow_unsandboxed_code)


def _judged(kind: Kind, job: Job, asked: Asked[Any], records_path: Path | None) -> TaskScore:
    judged = kind.judge(job.task, job.rows, asked.answers, job.scoring)
    if not math.isfinite(judged.value):
        raise no_number(job.task, f"the model's {job.scoring.metric} is {judged.value}")
    if records_path is not None and job.options.records:
        write_records(records_path, judged.records)
    return TaskScore(
        task=job.task,
        metric=job.scoring.metric,
        value=judged.value,
        stderr=judged.stderr,
        rows=len(job.rows),
        metrics={**judged.metrics, "prompts_cut": float(asked.prompts_cut)},
    )


def _log(score: TaskScore, seconds: float) -> None:
    cut = int(score.metrics["prompts_cut"])
    logger.info(
        "%s: %s %.4f ± %.4f, %d rows, %.1f rows/s%s",
        score.task,
        score.metric,
        score.value,
        score.stderr,
        score.rows,
        score.rows / seconds,
        f", {cut} prompts cut" if cut else "",
    )
