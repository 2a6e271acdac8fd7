"""The weighted average of models, and SFA's of a model with its anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from sfa_hf.errors import ConfigError
from sfa_hf.rules.base import Block, Finite, MergeRule, Survey, check_count, weights_or_equal

_ROUNDING = 1e-6  # of weights written in decimals: three times 0.333333 is refused, 0.3333333 is not


def average(theta: Tensor, theta_o: Tensor, beta: float | Tensor) -> None:
    r"""\theta <- (1 - \beta) \theta + \beta \theta_o, in place (arXiv 2501.05559, Alg. 1).

    Args:
        theta: weights in training; edited. Any shape and dtype.
        theta_o: anchor; same shape, dtype and device.
        beta: weight of the anchor, or one of each entry in theta's shape and dtype; 0 leaves theta and 1
            gives theta_o, bit for bit.
    """
    theta.lerp_(theta_o, beta)


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    r"""\sum_k w_k \theta_k.

    Args:
        tensors: of one shape and dtype.
        weights: one a tensor.
    """
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total


class Average(MergeRule):
    r"""\sum_k w_k \theta_k, with weights that sum to 1 (model soups, arXiv 2203.05482).

    Attributes:
        weights: w_k, one a model; equal ones where none are given.
        normalize: divide the weights by their sum.
    """

    name: ClassVar[str] = "average"

    weights: list[Finite] | None = None
    normalize: bool = False

    def check(self, models: int) -> None:
        """Weights: one a model, and of sum 1 or, to be normalised, not 0."""
        check_count(self.weights, models)
        if self.weights is None:
            return
        total = sum(self.weights)
        if self.normalize and abs(total) < _ROUNDING:
            raise ConfigError("weights", f"sum to {total:g}", "weights that do not cancel out")
        if not self.normalize and abs(total - 1) > _ROUNDING:
            raise ConfigError("weights", f"sum to {total:g}", "weights that sum to 1, or normalize: true")

    def merge(self, block: Block, survey: Survey | None) -> Tensor:  # noqa: ARG002 - has no survey
        """Average one block."""
        weights = weights_or_equal(self.weights, len(block.models), 1 / len(block.models))
        total = sum(weights) if self.normalize else 1.0
        return weighted_sum(block.models, [weight / total for weight in weights])

    def towards(self, block: Block, survey: Survey | None, beta: float | Tensor) -> Tensor:  # noqa: ARG002 - has no survey
        r"""(1 - \beta) \theta + \beta \theta_o."""
        theta, theta_o = block.models
        average(theta, theta_o, beta)
        return theta
