"""What the kinds of scoring by log-likelihood share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sfa_hf.evaluation.likelihood import Continuation, log_likelihoods, same_read
from sfa_hf.evaluation.scoring.base import Job, no_number


def totals(job: Job, continuations: Sequence[Continuation]) -> list[float]:
    """The log-likelihood, in nats, of every continuation, in order, on every process.

    Raises:
        ConfigError: one is NaN, as of weights that are so large that the model overflows.
    """
    groups = same_read(continuations)

    def step(batch: Sequence[int]) -> list[list[float]]:
        return log_likelihoods(job.live, [[continuations[i] for i in groups[place]] for place in batch])

    found = job.run([len(continuations[group[0]].read) for group in groups], step)
    by_index = {
        index: total
        for group, values in zip(groups, found, strict=True)
        for index, total in zip(group, values, strict=True)
    }
    in_order = [by_index[index] for index in range(len(continuations))]
    if any(map(math.isnan, in_order)):
        raise no_number(job.task, "the model's log-likelihoods of its rows are nan")
    return in_order
