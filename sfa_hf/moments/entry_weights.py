r"""The anchor's weight of each entry at a merge, from the second moments of this task and of those before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.moments.current import SecondMoments
from sfa_hf.moments.parameter_kinds import KINDS, OTHER, parameter_kind
from sfa_hf.rules import anchor_weight
from sfa_hf.shards.buffer import Anchor, Block

_KINDS = (*KINDS, OTHER)


class FisherWeights:
    r"""Makes the weights of one merge after another, of one training.

    \epsilon is relative to the mean of F and \bar F_o over a whole parameter, over all ranks: every engine
    and number of processes has the same.

    Args:
        engine: where the weights live.
        moments: F of the task in training.
        before: \bar F_o of the tasks before, in the anchor's layout; None for the mean of F over each
            parameter, the same for all its entries.
        names: of all merged parameters, in one order on all ranks.
        power: q.
    """

    def __init__(
        self,
        engine: Engine,
        moments: SecondMoments,
        before: Anchor | None,
        names: Sequence[str],
        power: float,
    ) -> None:
        self._engine, self._moments, self._before = engine, moments, before
        self._names, self._power = names, power
        self._sums_before: Mapping[str, float] | None = None

    def prefetch(self, shards: Sequence[Shard]) -> None:
        r"""Start to bring \bar F_o to the shards' device, if it is not there."""
        if self._before is not None:
            self._before.prefetch(shards)

    def at_merge(self, shards: Sequence[Shard], beta: float) -> EntryWeights:
        """Begin a merge; a collective call.

        Args:
            shards: of this rank; as many merges as there are may begin.
            beta: weight of the anchor where F says nothing.

        Raises:
            FloatingPointError: a second moment is infinite or NaN.
        """
        sums = self._summed(self._moments.sums(shards))
        if self._before is None:
            before: Iterator[Block] | None = None
            sums_before: Mapping[str, float] = sums
        else:
            if self._sums_before is None:
                self._sums_before = self._summed(_sums(self._before, shards))
            before, sums_before = self._before.blocks(shards), self._sums_before
        means = {
            shard.name: (sums[shard.name] + sums_before[shard.name]) / (2 * max(shard.shape.numel(), 1))
            for shard in shards
        }
        return EntryWeights(self._engine, self._moments, before, means, beta=beta, power=self._power)

    def _summed(self, sums: Mapping[str, float]) -> dict[str, float]:
        local = torch.tensor([sums.get(name, 0.0) for name in self._names], dtype=torch.float64)
        total = self._engine.sum_over_shards(local)
        for name, value in zip(self._names, total.tolist(), strict=True):
            if not torch.isfinite(torch.tensor(value)):
                raise FloatingPointError(f"the second moment of {name} is not finite: training has diverged")
        return dict(zip(self._names, total.tolist(), strict=True))


class EntryWeights:
    """The weights of one merge, block by block in the anchor's order, and their means."""

    def __init__(
        self,
        engine: Engine,
        moments: SecondMoments,
        before: Iterator[Block] | None,
        means: Mapping[str, float],
        *,
        beta: float,
        power: float,
    ) -> None:
        self._engine, self._moments, self._before, self._means = engine, moments, before, means
        self._beta, self._power = beta, power
        self._scratch = torch.empty(2, 0, dtype=torch.float64)
        self._sums: dict[tuple[str, torch.device], Tensor] = {}
        self._counts = dict.fromkeys(_KINDS, 0)

    def __call__(self, block: Block) -> Tensor:
        """Give the anchor's weight of a block's entries; valid until the next call."""
        f, f_o = self._scratch_for(block)
        # A parameter without any F: every scale gives the same, but 0.
        scale = self._means[block.shard.name] or 1.0
        self._moments.of_block(block, f).div_(scale)
        if self._before is None:
            f_o.fill_(self._means[block.shard.name] / scale)
        else:
            f_o.copy_(self._beside(block).theta_o).div_(scale)
        return self._counted(block, anchor_weight(f, f_o, self._beta, self._power))

    def means(self) -> dict[str, float]:
        """Mean weight over all entries, and over those of each kind of parameter; a collective call."""
        local = [[*self._sum_and_count(kind)] for kind in _KINDS]
        sums = self._engine.sum_over_shards(torch.tensor(local, dtype=torch.float64))
        total, count = sums.sum(0).tolist()
        by_kind = {
            kind: part / entries
            for kind, (part, entries) in zip(_KINDS, sums.tolist(), strict=True)
            if entries
        }
        return {"all": total / max(count, 1), **by_kind}

    def _beside(self, block: Block) -> Block:
        assert self._before is not None
        other = next(self._before)
        assert (other.shard.name, other.start) == (block.shard.name, block.start)
        return other

    def _counted(self, block: Block, weights: Tensor) -> Tensor:
        kind = parameter_kind(block.shard.name)
        key = kind, weights.device
        self._sums[key] = self._sums.get(key, 0) + weights.sum()
        self._counts[kind] += weights.numel()
        return weights

    def _sum_and_count(self, kind: str) -> tuple[float, float]:
        return sum(float(value) for (of, _), value in self._sums.items() if of == kind), self._counts[kind]

    def _scratch_for(self, block: Block) -> Tensor:
        numel, device = block.theta.numel(), block.theta.device
        if self._scratch.device != device or self._scratch.shape[1] < numel:
            self._scratch = torch.empty(2, numel, dtype=torch.float64, device=device)
        return self._scratch[:, :numel]


def _sums(before: Anchor, shards: Sequence[Shard]) -> dict[str, float]:
    return {shard.name: values.sum(dtype=torch.float64).item() for shard, values in before.pieces(shards)}
