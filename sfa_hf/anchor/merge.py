r"""One merge: every shard of this rank, block by block, with the distance to the anchor before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfa_hf.anchor.factors import Factors
from sfa_hf.anchor.rounding import write
from sfa_hf.anchor.surveys import concluded_surveys, training_block
from sfa_hf.anchor.weighting import Weights
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.rules import Block as RuleBlock
from sfa_hf.rules import MergeRule, Survey
from sfa_hf.shards.buffer import Block, ShardBuffer


@dataclass(frozen=True)
class Merged:
    r"""What a merge did, over all ranks.

    Attributes:
        drift_before: ||\theta - \theta_o||_2 over the merged parameters, just before.
        drift_after: the same, just after.
        nbytes: bytes of theta_o that were read; under DDP those of one replica.
        discarded: of the merged updates of adapters, the share of the squared norm that their rank cannot
            hold; None without adapters that are merged exactly.
    """

    drift_before: float
    drift_after: float
    nbytes: int
    discarded: float | None = None


@torch.no_grad()
def merge(
    engine: Engine,
    shards: Sequence[Shard],
    theta_o: ShardBuffer,
    *,
    rule: MergeRule,
    weights: Weights,
    seed: tuple[int, ...],
    names: Sequence[str] = (),
    factors: Factors | None = None,
) -> Merged:
    r"""Move the shards towards \theta_o and publish them; a collective call.

    Each block is computed in fp64 and rounded once, to within half an ulp of an fp32 weight. (In fp32 beta
    itself, the difference and the product would round too: 1.1 ulp was seen.) 16-bit weights without fp32
    masters are rounded stochastically, the same way on every replica.

    Args:
        engine: where the weights live.
        shards: this rank's part of what is merged; may be empty.
        theta_o: of these shards.
        rule: one that works in training.
        weights: of \theta_o at this merge.
        seed: of the stochastic rounding, e.g. the run's seed and the step.
        names: of all merged parameters, in one order on all ranks; for rules with a survey.
        factors: of adapters, which are merged as updates of the weights; None for none. Their \theta_o may
            have shapes of its own.
    """
    factors = factors or Factors()
    arithmetic, places = _Arithmetic(rule, seed), factors.places(shards)
    surveys = concluded_surveys(
        engine, rule, names, shards, lambda: map(arithmetic.in_fp64, theta_o.blocks(places))
    )
    for block in factors.collect(theta_o.blocks(places)):
        arithmetic.merge(block, surveys.get(block.shard.name), weights.of(block))
    updates = factors.merge(engine, shards, weights.beta, seed)
    engine.publish()
    squared_before, squared_after = arithmetic.squared_drifts()
    local = torch.tensor([squared_before, squared_after, theta_o.nbytes], dtype=torch.float64)
    squared_before, squared_after, nbytes = engine.sum_over_shards(local).tolist()
    return Merged(
        (squared_before + updates.squares.before) ** 0.5,
        (squared_after + updates.squares.after) ** 0.5,
        int(nbytes),
        updates.discarded_share(),
    )


class _Arithmetic:
    """Merges blocks in fp64 scratch memory that it reuses, and adds up their squared drifts."""

    def __init__(self, rule: MergeRule, seed: tuple[int, ...]) -> None:
        self._rule, self._seed = rule, seed
        self._scratch = torch.empty(3, 0, dtype=torch.float64)
        self._squared: dict[torch.device, Tensor] = {}

    def in_fp64(self, block: Block) -> RuleBlock:
        r"""Copy \theta and \theta_o of a block to scratch memory, as the rule takes them."""
        theta, theta_o, _ = self._scratch_for(block)
        theta.copy_(block.theta)
        theta_o.copy_(block.values)
        return training_block(self._rule, block.shard.name, block.shard.offset + block.start, theta, theta_o)

    def merge(self, block: Block, survey: Survey | None, beta: float | Tensor) -> None:
        given = self.in_fp64(block)
        theta, theta_o, difference = self._scratch_for(block)
        before = _squared_norm(torch.sub(theta, theta_o, out=difference))
        write(self._rule.towards(given, survey, beta), block, self._seed)
        theta.copy_(block.theta)
        after = _squared_norm(torch.sub(theta, theta_o, out=difference))
        self._squared[theta.device] = self._squared.get(theta.device, 0) + torch.stack([before, after])

    def squared_drifts(self) -> tuple[float, float]:
        """Return the squared L2 norms before and after, over all blocks so far."""
        before, after = sum((squared.cpu() for squared in self._squared.values()), torch.zeros(2)).tolist()
        return before, after

    def _scratch_for(self, block: Block) -> Tensor:
        numel, device = block.theta.numel(), block.theta.device
        if self._scratch.device != device or self._scratch.shape[1] < numel:
            self._scratch = torch.empty(3, numel, dtype=torch.float64, device=device)
        return self._scratch[:, :numel]


def _squared_norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector).square()
