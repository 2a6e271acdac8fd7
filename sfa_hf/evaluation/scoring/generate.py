"""Greedy answers, compared with the targets."""

from __future__ import annotations

from collections.abc import Sequence

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.answers import extract, normalised
from sfa_hf.evaluation.generation import greedy_answers
from sfa_hf.evaluation.metrics.loading import compute
from sfa_hf.evaluation.prompts import generation_prompts
from sfa_hf.evaluation.scoring.base import Asked, Job, Judged
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.task import Row


def ask(job: Job) -> Asked[str]:
    """The model's continuation of every prompt."""
    _expected(
        job.task, job.rows, job.scoring
    )  # a pattern that misses the targets is found before the model runs
    limit = job.scoring.max_new_tokens
    prompts, cut = generation_prompts(job.task, job.rows, job.live, job.encoding, limit)

    def step(batch: Sequence[int]) -> list[str]:
        return greedy_answers(job.live, [prompts[i] for i in batch], limit, job.scoring.stop)

    return Asked(job.run([len(prompt) for prompt in prompts], step), cut)


def judge(task: str, rows: Sequence[Row], answers: Sequence[str], scoring: Scoring) -> Judged:
    """Exact match, or F1 of the positive class, of what the pattern finds in output and target.

    Metrics: exact_match; answered, the share of outputs in which the pattern found something; for F1 tasks
    f1, precision and recall.
    """
    expected = _expected(task, rows, scoring)
    found = [extract(answer, scoring.extract) for answer in answers]
    # where nothing was found; `evaluate` takes no None, and no right answer that a pattern finds is empty
    texts = [answer or "" for answer in found]
    matched = compute("exact_match", predictions=texts, references=expected)
    metrics = {
        "exact_match": matched["exact_match"],
        "answered": sum(each is not None for each in found) / len(found),
    }
    stderr = matched["stderr"]
    if scoring.metric == "f1":
        f1 = compute("f1", predictions=texts, references=expected, positive=str(scoring.positive))
        stderr = f1.pop("stderr")
        metrics |= f1
    records = [
        {
            "index": row.index,
            "prompt": row.prompt,
            "target": row.target,
            "output": output,
            "answer": answer,
            "expected": right,
            "score": float(normalised(text) == normalised(right)),
        }
        for row, output, answer, text, right in zip(rows, answers, found, texts, expected, strict=True)
    ]
    return Judged(metrics[scoring.metric], stderr, metrics, records)


def _expected(task: str, rows: Sequence[Row], scoring: Scoring) -> list[str]:
    return [_right(task, row, scoring.extract) for row in rows]


def _right(task: str, row: Row, pattern: str | None) -> str:
    found = extract(row.target, pattern)
    if found is None or (pattern is not None and not normalised(found)):
        problem = f"{pattern!r} finds nothing in the target of held-out row {row.index}"
        raise ConfigError(
            f"{task}.scoring.extract", problem, "a pattern that finds the answer in every target"
        )
    return found
