"""How surprised the model is by the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.metrics.loading import compute
from sfa_hf.evaluation.prompts import continuations
from sfa_hf.evaluation.scoring.base import Asked, Job, Judged
from sfa_hf.evaluation.scoring.likelihoods import totals
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.task import Row

METRICS = ("nll",)


@dataclass(frozen=True)
class Surprise:
    """ln P(target | prompt) in nats, over so many tokens."""

    log_likelihood: float
    tokens: int


def ask(job: Job) -> Asked[Surprise]:
    """The log-likelihood of every target."""
    for row in job.rows:
        if not row.target:
            raise ConfigError(
                f"{job.task}.target", f"held-out row {row.index} is empty", "text to be predicted"
            )
    pairs, cut = continuations(job.task, job.rows, [[row.target] for row in job.rows], job.live, job.encoding)
    found = zip(totals(job, pairs), pairs, strict=True)
    return Asked([Surprise(total, len(pair.target)) for total, pair in found], cut)


def judge(task: str, rows: Sequence[Row], answers: Sequence[Surprise], scoring: Scoring) -> Judged:  # noqa: ARG001
    """Minus the mean negative log-likelihood in nats a token, tokens pooled over the rows.

    Metrics: nll, perplexity and bits_per_byte.
    """
    metrics = compute(
        "nll",
        log_likelihoods=[answer.log_likelihood for answer in answers],
        tokens=[answer.tokens for answer in answers],
        bytes=[len(row.target.encode()) for row in rows],
    )
    stderr = metrics.pop("stderr")
    records = [
        {
            "index": row.index,
            "prompt": row.prompt,
            "target": row.target,
            "log_likelihood": answer.log_likelihood,
            "tokens": answer.tokens,
            "score": answer.log_likelihood / answer.tokens,
        }
        for row, answer in zip(rows, answers, strict=True)
    ]
    return Judged(-metrics["nll"], stderr, metrics, records)
