"""Greedy answers, compared with the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfa_hf.config.patterns import compiled
from sfa_hf.errors import ConfigError, under
from sfa_hf.evaluation.answers import extract, normalised
from sfa_hf.evaluation.generation import greedy_answers
from sfa_hf.evaluation.latex import check_installed, same
from sfa_hf.evaluation.metrics.loading import compute
from sfa_hf.evaluation.numbers import number
from sfa_hf.evaluation.prompts import generation_prompts
from sfa_hf.evaluation.scoring.base import Asked, Job, Judged
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.task import Row

METRICS = ("exact_match", "f1")

#: What a pattern found in each row's output; None: nothing.
Found = Sequence[str | None]


def ask(job: Job) -> Asked[str]:
    """The model's continuation of every prompt."""
    # a pattern that misses the targets is found before the model runs
    _expected(job.task, job.rows, job.scoring)
    limit = job.scoring.max_new_tokens
    prompts, cut = generation_prompts(job.task, job.rows, job.live, job.encoding, limit)

    def step(batch: Sequence[int]) -> list[str]:
        return greedy_answers(job.live, [prompts[i] for i in batch], limit, job.scoring.stop)

    return Asked(job.run([len(prompt) for prompt in prompts], step), cut)


def judge(task: str, rows: Sequence[Row], answers: Sequence[str], scoring: Scoring) -> Judged:
    """Exact match, or F1 of the positive class, of what the pattern finds in output and target.

    Metrics: exact_match; answered, the share of outputs in which the pattern found something; the two under
    each further pattern, as exact_match_NAME and answered_NAME; for F1 tasks f1, precision and recall.
    """
    expected = _expected(task, rows, scoring)
    with under(f"{task}.scoring.extract"):
        found = [extract(answer, scoring.extract) for answer in answers]
    with under(f"{task}.scoring.also_extract"):
        others = {
            name: [extract(answer, pattern) for answer in answers]
            for name, pattern in scoring.also_extract.items()
        }
    with under(f"{task}.scoring.ignore"):
        _compared(expected, scoring)
        _compared(found, scoring)
    metrics = _matches(found, expected, scoring)
    stderr = metrics.pop("stderr")
    for name, theirs in others.items():
        matches = _matches(theirs, expected, scoring)
        metrics |= {f"{metric}_{name}": matches[metric] for metric in ("exact_match", "answered")}
    if scoring.metric == "f1":
        texts, rights = _compared(found, scoring), _compared(expected, scoring)
        f1 = compute("f1", predictions=texts, references=rights, positive=str(scoring.positive))
        stderr = f1.pop("stderr")
        metrics |= f1
    records = _records(rows, answers, found, expected, scoring)
    for place, record in enumerate(records):
        record |= {f"answer_{name}": theirs[place] for name, theirs in others.items()}
    return Judged(metrics[scoring.metric], stderr, metrics, records)


def _matches(found: Found, expected: Sequence[str], scoring: Scoring) -> dict[str, float]:
    texts, rights = _beside(found, expected, scoring)
    matched = compute("exact_match", predictions=texts, references=rights)
    return {**matched, "answered": sum(each is not None for each in found) / len(found)}


def _compared(answers: Found, scoring: Scoring) -> list[str]:
    """Answers as they are compared, but for expressions, which two are compared at a time.

    "" stands where nothing was found: `evaluate` takes no None, and no right answer that a pattern finds is
    empty.
    """
    pattern = compiled(scoring.ignore) if scoring.ignore else None
    texts = [pattern.removed_from(each or "") if pattern else each or "" for each in answers]
    if scoring.compare != "number":
        return texts
    values = [number(text, scoring.units) for text in texts]
    return [text if value is None else str(value) for text, value in zip(texts, values, strict=True)]


def _beside(found: Found, expected: Sequence[str], scoring: Scoring) -> tuple[list[str], list[str]]:
    """Answers and the right ones as they are compared: equal texts are the same."""
    texts, rights = _compared(found, scoring), _compared(expected, scoring)
    if scoring.compare == "latex":
        bare = scoring.extract is not None
        pairs = zip(texts, rights, strict=True)
        texts = [right if same(right, text, bare=bare) else text for text, right in pairs]
    return texts, rights


def _records(
    rows: Sequence[Row], answers: Sequence[str], found: Found, expected: Sequence[str], scoring: Scoring
) -> list[dict[str, Any]]:
    texts, rights = _beside(found, expected, scoring)
    return [
        {
            "index": row.index,
            "prompt": row.prompt,
            "target": row.target,
            "output": output,
            "answer": answer,
            "expected": right,
            "score": float(normalised(text) == normalised(compared)),
        }
        for row, output, answer, right, text, compared in zip(
            rows, answers, found, expected, texts, rights, strict=True
        )
    ]


def _expected(task: str, rows: Sequence[Row], scoring: Scoring) -> list[str]:
    key = f"{task}.scoring.compare"
    if scoring.compare == "latex":
        check_installed(key)
    expected = [_right(task, row, scoring.extract) for row in rows]
    with under(f"{task}.scoring.ignore"):
        compared = _compared(expected, scoring)
    for row, text in zip(rows, compared, strict=True):
        if scoring.compare == "number" and number(text, scoring.units) is None:
            problem = f"is number, and held-out row {row.index} has the answer {text!r:.60}"
            raise ConfigError(key, problem, "text, or extract and units that leave a number")
        if scoring.compare == "latex" and not same(text, text, bare=True):
            problem = f"is latex, and held-out row {row.index} has the answer {text!r:.60}"
            raise ConfigError(key, problem, "text, or an extract that leaves an expression")
    return expected


def _right(task: str, row: Row, pattern: str | Sequence[str] | None) -> str:
    with under(f"{task}.scoring.extract"):
        found = extract(row.target, pattern)
    if found is None or (pattern is not None and not normalised(found)):
        problem = f"{pattern!r} finds nothing in the target of held-out row {row.index}"
        raise ConfigError(
            f"{task}.scoring.extract", problem, "a pattern that finds the answer in every target"
        )
    return found
