"""DARE: drop entries of task vectors at random and rescale the rest (arXiv 2311.03099)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sfa_hf.distributed.seeds import seed_from
from sfa_hf.errors import ConfigError
from sfa_hf.rules.average import weighted_sum
from sfa_hf.rules.base import Block, Finite, MergeRule, Survey, check_count, weights_or_equal
from sfa_hf.rules.ties import check_positive, disjoint_mean


class Dare(MergeRule):
    r"""\theta_base + \lambda \sum_k w_k \tau~_k: each entry of \tau_k is 0 with probability q, or over 1 - q.

    Attributes:
        drop: q.
        lambda_: \lambda, scale of the sum or mean.
        weights: w_k, one a model; 1 each where none are given.
        sign_election: take TIES' disjoint mean of the \tau~_k instead of their sum.
        seed: of the entries that are dropped. They depend on nothing else but the tensor's name and the
            model's place in the list.
    """

    name: ClassVar[str] = "dare"
    needs_base: ClassVar[bool] = True

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.9
    lambda_: Finite = Field(1.0, alias="lambda")
    weights: list[Finite] | None = None
    sign_election: bool = False
    seed: int = Field(0, ge=0)

    def check(self, models: int) -> None:
        """Weights: one a model; for an election not negative and not all zero."""
        check_count(self.weights, models)
        if self.sign_election:
            check_positive(self.weights, models)
            if self.weights and min(self.weights) < 0:
                raise ConfigError(
                    "weights", f"holds {min(self.weights):g}", "with sign_election none below 0"
                )

    def merge(self, block: Block, survey: Survey | None) -> Tensor:  # noqa: ARG002 - has no survey
        """Merge one block."""
        assert block.base is not None
        taus = [self._dropped(tau, block, k) for k, tau in enumerate(block.task_vectors())]
        weights = weights_or_equal(self.weights, len(taus), 1.0)
        combine = disjoint_mean if self.sign_election else weighted_sum
        return combine(taus, weights).mul_(self.lambda_).add_(block.base)

    def _dropped(self, tau: Tensor, block: Block, k: int) -> Tensor:
        seed = seed_from(self.seed, k, block.name, block.offset)
        return drop_and_rescale(tau, self.drop, torch.Generator(tau.device).manual_seed(seed))


def drop_and_rescale(tau: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """Set each entry to 0 with probability ``drop``, and divide the others by 1 - ``drop``."""
    kept = torch.empty_like(tau).bernoulli_(1 - drop, generator=generator)
    return kept.mul_(tau).div_(1 - drop)
