"""Averages weighted entry by entry: by Fisher information or AdamW's second moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sfa_hf.rules.average import average
from sfa_hf.rules.base import Block, MergeRule, NotNegative, Survey, weights_or_equal
from sfa_hf.rules.ties import check_positive

EPSILON = 1e-6
r"""\epsilon relative to the mean of F: where neither model has any F, the weights alone count."""


class MeanImportance(Survey):
    """Mean of F over all models and entries of one tensor, in fp64."""

    def __init__(self, numel: int) -> None:
        self._numel = numel
        self.mean = 0.0

    def measure(self, block: Block) -> Tensor:
        """Return the sum of a block's F."""
        return torch.stack([f.sum(dtype=torch.float64) for f in block.importances]).sum()

    def conclude(self, total: Tensor) -> None:
        """Divide the sum over the tensor."""
        self.mean = total.item() / self._numel


class Fisher(MergeRule):
    r"""\sum_k w_k (F_k + \epsilon)^q \theta_k / \sum_k w_k (F_k + \epsilon)^q, entry by entry.

    q = 1 is Fisher merging (arXiv 2111.09832) and, with AdamW's second moment as F and weights
    [1 - \alpha, \alpha], CMM's (arXiv 2509.23592); q = 1/2 is OTA-Merge's (arXiv 2509.11167). Where no model
    has any F the weights alone count.

    Attributes:
        weights: w_k, one a model; equal ones where none are given. Only their ratios matter.
        power: q.
        epsilon: \epsilon relative to the mean of F over the tensor and all models.
    """

    name: ClassVar[str] = "fisher"
    needs_importances: ClassVar[bool] = True

    weights: list[NotNegative] | None = None
    power: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = EPSILON

    def check(self, models: int) -> None:
        """Weights: one a model, not all zero."""
        check_positive(self.weights, models)

    def survey(self, models: int, numel: int, dtype: torch.dtype) -> Survey:  # noqa: ARG002 - fp64 for all
        """Start on the mean of F."""
        return MeanImportance(models * numel)

    def merge(self, block: Block, survey: Survey | None) -> Tensor:
        """Average one block."""
        assert isinstance(survey, MeanImportance)
        # A tensor without any F: every epsilon gives the same, but 0.
        mean = survey.mean or 1.0
        weights = weights_or_equal(self.weights, len(block.models), 1.0)
        precisions = [
            precision(f / mean, weight, self.epsilon, self.power)
            for f, weight in zip(block.importances, weights, strict=True)
        ]
        return precision_weighted(block.models, precisions)

    def towards(self, block: Block, survey: Survey | None, beta: float | Tensor) -> Tensor:  # noqa: ARG002 - F is in beta
        r"""(1 - \beta) \theta + \beta \theta_o, with the :func:`anchor_weight` of each entry as \beta."""
        theta, theta_o = block.models
        average(theta, theta_o, beta)
        return theta


def anchor_weight(f: Tensor, f_o: Tensor | float, beta: float, power: float) -> Tensor:
    r"""The anchor's share of each entry at a merge in training: w_o / (w_o + w).

    w_o = \beta (\bar F_o + \epsilon)^q and w = (1 - \beta) (F + \epsilon)^q, of which only the ratio w / w_o
    is taken: where F = \bar F_o, the share is \beta itself, to the last bit of fp64.

    Args:
        f: F of the task in training, not negative, over the mean of F and \bar F_o; fp64; overwritten.
        f_o: \bar F_o of the tasks before, over the same mean; f's shape, or one number for all entries.
        beta: \beta; 0 and 1 give just these.
        power: q.

    Returns:
        ``f``, which now holds the shares: in [0, 1], never NaN.
    """
    ratio = f.add_(EPSILON).div_(f_o + EPSILON)
    ratio = ratio.sqrt_() if power == 0.5 else ratio.pow_(power)
    return ratio.mul_(1 - beta).add_(beta).reciprocal_().mul_(beta)


def precision(f: Tensor, weight: float, epsilon: float, power: float) -> Tensor:
    r"""Return w (F + \epsilon)^q, entry by entry.

    Args:
        f: F, not negative; any shape.
        weight: w of the model.
        epsilon: in the units of F.
        power: q.
    """
    shifted = f + epsilon
    return (shifted.sqrt_() if power == 0.5 else shifted.pow_(power)).mul_(weight)


def precision_weighted(models: Sequence[Tensor], precisions: Sequence[Tensor]) -> Tensor:
    r"""\sum_k p_k \theta_k / \sum_k p_k, entry by entry.

    Args:
        models: \theta_k, of one shape.
        precisions: p_k, same shapes; overwritten by none of the models.
    """
    total = torch.zeros_like(models[0])
    for theta, p in zip(models, precisions, strict=True):
        total.addcmul_(p, theta)
    return total.div_(sum(precisions[1:], precisions[0]))
