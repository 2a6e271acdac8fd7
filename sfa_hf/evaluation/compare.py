"""Two runs, or two stages of one run, on the same rows: what changed, and is it more than chance?

Works on records as :func:`sfa_hf.evaluation.records.read_records` returns them, without a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.statistics import BOOTSTRAP_SEED, mean_stderr, ratio_stderr

COMPARISON_RESAMPLES = 10_000  # a 2.5 % quantile then rests on 250 resamples
_BATCH = 100  # resamples drawn at a time: all of them together would be 10,000 times the rows

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Mean score of ``after`` minus that of ``before``, on the same rows.

    Attributes:
        value: the difference of the means.
        stderr: its standard error; the rows' common difficulty cancels, unlike in the two scores' own errors.
        low: 2.5 % quantile of the bootstrap over rows.
        high: 97.5 % quantile.
        p_value: two-sided, of no difference: twice the smaller share of resamples on either side of 0, each
            share counted with one resample more than were drawn, so that it is never 0. 1 for a single row.
        rows: how many.
    """

    value: float
    stderr: float
    low: float
    high: float
    p_value: float
    rows: int


@dataclass(frozen=True)
class Transitions:
    """Rows by whether they were answered rightly before and after.

    Attributes:
        kept: right before and after (1 -> 1).
        lost: right before, wrong after (1 -> 0).
        gained: wrong before, right after (0 -> 1).
        never: wrong before and after (0 -> 0).
    """

    kept: int
    lost: int
    gained: int
    never: int

    @property
    def rows(self) -> int:
        return self.kept + self.lost + self.gained + self.never

    def lost_beyond_chance(self, chance: float) -> float:
        """Share of the rows that went 1 -> 0 and that guessing does not explain.

        Rows whose answer is a guess both times, right with probability c, go 0 -> 0 with probability
        (1 - c)^2 and 1 -> 0 with c (1 - c): the 0 -> 0 rows tell how many 1 -> 0 ones to expect of guessing,
        namely c / (1 - c) as many. That takes every 0 -> 0 row for a guess; where some are firm errors it
        takes off too much, so that the true share is at least the one given.

        Args:
            chance: c, e.g. 0.5 for two choices, 0 for generated answers.
        """
        return self._beyond_chance(self.lost, chance)

    def gained_beyond_chance(self, chance: float) -> float:
        """Share of the rows that went 0 -> 1 and that guessing does not explain; see the other direction."""
        return self._beyond_chance(self.gained, chance)

    def _beyond_chance(self, changed: int, chance: float) -> float:
        if not 0 <= chance < 1:
            raise ValueError(f"chance is {chance}; it must be at least 0 and below 1")
        return max(0.0, changed - self.never * chance / (1 - chance)) / self.rows


def paired_difference(before: Sequence[Record], after: Sequence[Record]) -> Difference:
    """Paired bootstrap over rows, with a fixed seed, of the difference between two mean scores.

    Args:
        before: one record a row, each with ``index`` and ``score``.
        after: records of the same rows.

    Raises:
        ValueError: the two are not about the same rows.
    """
    changes = np.array([b - a for a, b in _pairs(before, after)], dtype=np.float64)
    means = _resampled_means(changes)
    low, high = np.quantile(means, [0.025, 0.975])
    one_side = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Difference(
        value=float(changes.mean()),
        stderr=mean_stderr(changes.tolist()),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * (one_side + 1) / (len(means) + 1)),
        rows=len(changes),
    )


def nll_rise(before: Sequence[Record], after: Sequence[Record]) -> tuple[float, float]:
    """By how much the negative log-likelihood of the same tokens rose, and its standard error.

    In nats per token, pooled over rows. The measure of forgetting of PEFT's comparison of methods: the
    cross-entropy of a fine-tuned model minus that of its base model, on text that neither was tuned on.

    Args:
        before: records of a task scored by perplexity: the base model's.
        after: records of the same rows: the fine-tuned model's.

    Raises:
        ConfigError: the two read other rows, or as other tokens.
    """
    tokens = [record["tokens"] for record in before]
    same = [(each["index"], each["target"], each["tokens"]) for each in before]
    if same != [(each["index"], each["target"], each["tokens"]) for each in after]:
        problem = "reads the same text as other tokens: nats per token cannot be compared"
        raise ConfigError("base", problem, "a model with the same tokenizer")
    pairs = zip(before, after, strict=True)
    lost = [first["log_likelihood"] - second["log_likelihood"] for first, second in pairs]
    return sum(lost) / sum(tokens), ratio_stderr(lost, tokens)


def transitions(before: Sequence[Record], after: Sequence[Record]) -> Transitions:
    """Count rows that were learnt and lost between two evaluations of the same rows.

    Args:
        before: one record a row, each with ``index`` and a ``score`` of 0 or 1.
        after: records of the same rows.

    Raises:
        ValueError: the two are not about the same rows, or a score is neither 0 nor 1.
    """
    pairs = _pairs(before, after)
    if not {score for pair in pairs for score in pair} <= {0, 1}:
        raise ValueError("transitions are between right (1) and wrong (0): a score is neither")
    return Transitions(
        kept=pairs.count((1, 1)),
        lost=pairs.count((1, 0)),
        gained=pairs.count((0, 1)),
        never=pairs.count((0, 0)),
    )


def right_or_wrong(records: Sequence[Record]) -> bool:
    """Whether every row's score is 1 or 0, as :func:`transitions` wants them."""
    return {record["score"] for record in records} <= {0, 1}


def chance_level(records: Sequence[Record]) -> float:
    """How often a guess is right: the mean over rows of 1 / choices; 0 for rows that are no choice."""
    return sum(1 / len(record["choices"]) if "choices" in record else 0 for record in records) / len(records)


def _resampled_means(values: np.ndarray) -> np.ndarray:
    """Means of resamples with replacement: [COMPARISON_RESAMPLES], or the one mean of a single row."""
    if len(values) == 1:
        return values
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=COMPARISON_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return found.bootstrap_distribution


def _pairs(before: Sequence[Record], after: Sequence[Record]) -> list[tuple[float, float]]:
    first, second = ({record["index"]: record for record in records} for records in (before, after))
    if not first or first.keys() != second.keys() or len(first) != len(before) or len(second) != len(after):
        raise ValueError("the records are not about the same rows, each once")
    for index, record in first.items():
        if (record["prompt"], record["target"]) != (second[index]["prompt"], second[index]["target"]):
            raise ValueError(f"row {index} has another prompt or target in the second run")
    return [(first[index]["score"], second[index]["score"]) for index in sorted(first)]
