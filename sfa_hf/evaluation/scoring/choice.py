"""The choice that the model finds most likely, compared with the right one."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sfa_hf.evaluation.metrics.loading import compute
from sfa_hf.evaluation.prompts import continuations
from sfa_hf.evaluation.scoring.base import Asked, Job, Judged
from sfa_hf.evaluation.scoring.likelihoods import totals
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.task import Row

logger = logging.getLogger(__name__)

METRICS = ("accuracy", "f1")

_LITTLE_MASS = 0.01
_SHORT = 3
"""Tokens; any one longer choice has little probability."""

# by what a choice's log-likelihood is divided -> the metric's name
ACCURACIES = {"none": "accuracy_undivided", "tokens": "accuracy_per_token", "bytes": "accuracy_per_byte"}


@dataclass(frozen=True)
class Choices:
    """ln P(choice | prompt) in nats and the number of tokens, of each of a row's choices."""

    log_likelihoods: list[float]
    tokens: list[int]

    @property
    def mass(self) -> float:
        """The probability of all choices together; at most 1 where none is the beginning of another."""
        return sum(map(math.exp, self.log_likelihoods))

    def best(self, texts: Sequence[str], normalise: str) -> int:
        """Position of the choice with the highest log-likelihood, divided as asked; first of equals."""
        scores = [
            total / size
            for total, size in zip(self.log_likelihoods, self._sizes(texts, normalise), strict=True)
        ]
        return max(range(len(scores)), key=scores.__getitem__)

    def _sizes(self, texts: Sequence[str], normalise: str) -> list[int]:
        sizes = {
            "none": [1 for _ in texts],
            "tokens": self.tokens,
            # the space that separates a choice from its prompt is no part of its length
            "bytes": [len(text.strip().encode()) for text in texts],
        }[normalise]
        return [max(size, 1) for size in sizes]


def ask(job: Job) -> Asked[Choices]:
    """The log-likelihood of every choice of every row."""
    pairs, cut = continuations(job.task, job.rows, [row.choices for row in job.rows], job.live, job.encoding)
    found = iter(zip(totals(job, pairs), pairs, strict=True))
    answers = []
    for row in job.rows:
        of_row = [next(found) for _ in row.choices]
        answers.append(Choices([total for total, _ in of_row], [len(pair.target) for _, pair in of_row]))
    return Asked(answers, cut)


def judge(task: str, rows: Sequence[Row], answers: Sequence[Choices], scoring: Scoring) -> Judged:
    """Accuracy, or F1 of the positive class, of the likeliest choice.

    Metrics: accuracy, of the likeliest choice under the task's own normalisation; accuracy_undivided,
    accuracy_per_token and accuracy_per_byte, under each of the three; mass, the probability of all choices
    together, the mean over rows; for F1 tasks f1, precision and recall.
    """
    right = [row.choices.index(row.target) for row in rows]
    chosen = {
        way: [answer.best(row.choices, way) for row, answer in zip(rows, answers, strict=True)]
        for way in ACCURACIES
    }
    scores = {way: compute("accuracy", predictions=picks, references=right) for way, picks in chosen.items()}
    picks, own = chosen[scoring.normalise], scores[scoring.normalise]
    metrics = {"accuracy": own["accuracy"]}
    metrics |= {name: scores[way]["accuracy"] for way, name in ACCURACIES.items()}
    metrics["mass"] = sum(answer.mass for answer in answers) / len(answers)
    _warn_of_little_mass(task, metrics["mass"], answers)
    stderr = own["stderr"]
    outputs = [row.choices[pick] for row, pick in zip(rows, picks, strict=True)]
    if scoring.metric == "f1":
        targets = [row.target for row in rows]
        f1 = compute("f1", predictions=outputs, references=targets, positive=str(scoring.positive))
        stderr = f1.pop("stderr")
        metrics |= f1
    records = [
        {
            "index": row.index,
            "prompt": row.prompt,
            "target": row.target,
            "output": output,
            "choices": list(row.choices),
            "log_likelihoods": answer.log_likelihoods,
            "tokens": answer.tokens,
            "score": float(output == row.target),
        }
        for row, output, answer in zip(rows, outputs, answers, strict=True)
    ]
    return Judged(metrics[scoring.metric], stderr, metrics, records)


def _warn_of_little_mass(task: str, mass: float, answers: Sequence[Choices]) -> None:
    if mass < _LITTLE_MASS and max(max(answer.tokens) for answer in answers) <= _SHORT:
        logger.warning(
            "%s: the choices hold %.2g of the probability: the model would say something else, and the score "
            "is noise (data.chat_template=true for an instruct model, or choices that the model would use)",
            task,
            mass,
        )
