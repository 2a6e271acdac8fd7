"""TIES: trim, elect signs, average what agrees (arXiv 2306.01708)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import hardshrink

from sfa_hf.errors import ConfigError
from sfa_hf.rules.average import weighted_sum
from sfa_hf.rules.base import (
    Block,
    Finite,
    MergeRule,
    NotNegative,
    Scope,
    Survey,
    check_count,
    weights_or_equal,
)
from sfa_hf.rules.threshold import Thresholds

Density = Annotated[float, Field(gt=0, le=1)]
_TINY = 1e-30  # a divisor where nothing agrees and the sum is zero too


class Ties(MergeRule):
    r"""\theta_base + \lambda \tau_m, \tau_m the disjoint mean of the trimmed task vectors.

    Each \tau_k keeps its max(1, floor(density n)) largest of n entries by magnitude, and those that equal the
    smallest of them, as in the paper's code; the rest become 0. The elected sign of an entry is that of
    \sum_k w_k \tau_k, + where it is 0; \tau_m is the weighted mean of the entries that have it.

    Attributes:
        density: share of the entries that is kept.
        lambda_: \lambda, scale of the mean.
        weights: w_k, one a model; 1 each where none are given, as in the paper.
        threshold: "vector" is the paper's, one threshold over all merged tensors of a model; "tensor" is one
            a tensor, as in mergekit and PEFT.
    """

    name: ClassVar[str] = "ties"
    needs_base: ClassVar[bool] = True

    density: Density = 0.2
    lambda_: Finite = Field(1.0, alias="lambda")
    weights: list[NotNegative] | None = None
    threshold: Scope = "vector"

    @property
    def scope(self) -> Scope:
        """What one threshold is for."""
        return self.threshold

    def check(self, models: int) -> None:
        """Weights: one a model, not all zero."""
        check_positive(self.weights, models)

    def survey(self, models: int, numel: int, dtype: torch.dtype) -> Survey | None:
        """Start on the thresholds; with density 1 there are none."""
        return None if self.density == 1 else Thresholds(models, max(1, int(self.density * numel)), dtype)

    def merge(self, block: Block, survey: Survey | None) -> Tensor:
        """Merge one block."""
        assert block.base is not None
        taus = block.task_vectors()
        if isinstance(survey, Thresholds):
            taus = [trimmed(tau, value) for tau, value in zip(taus, survey.values(), strict=True)]
        weights = weights_or_equal(self.weights, len(taus), 1.0)
        return disjoint_mean(taus, weights).mul_(self.lambda_).add_(block.base)


def check_positive(weights: Sequence[float] | None, models: int) -> None:
    """Raise ConfigError unless there is a weight for every model, and one above 0."""
    check_count(weights, models)
    if weights is not None and not any(weights):
        raise ConfigError("weights", "are all 0", "at least one above 0")


def trimmed(tau: Tensor, threshold: float) -> Tensor:
    """Copy ``tau`` with entries of a magnitude below ``threshold`` set to 0; an equal one stays."""
    just_below = torch.nextafter(torch.tensor(threshold, dtype=tau.dtype), torch.tensor(0.0, dtype=tau.dtype))
    return hardshrink(tau, just_below.item()) if threshold > 0 else tau


def disjoint_mean(taus: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    r"""Weighted mean, entry by entry, of the \tau_k that have the elected sign; 0 where none has.

    Args:
        taus: trimmed task vectors, of one shape.
        weights: not negative, one a task vector.
    """
    sign = torch.copysign(torch.ones(()), weighted_sum(taus, weights).add_(0.0))
    agreeing = [(tau * sign).relu_() for tau in taus]
    total = weighted_sum(agreeing, weights)
    divisor = weighted_sum([entry.sign_() for entry in agreeing], weights)
    return total.div_(divisor.clamp_(min=_TINY)).mul_(sign)
