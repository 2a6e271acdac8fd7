r"""The anchor's weight of each entry at a merge, from the second moments of this task and of those before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sfa_hf.anchor.weighting import Weights
from sfa_hf.engines.base import Engine
from sfa_hf.moments.current import SecondMoments
from sfa_hf.moments.parameter_kinds import KINDS, OTHER, parameter_kind
from sfa_hf.rules import anchor_weight
from sfa_hf.shards.buffer import Block

_KINDS = (*KINDS, OTHER)


class EntryWeights(Weights):
    r"""The weights of one merge, block by block in the buffer's order, and their means.

    Args:
        engine: where the weights live.
        moments: F of the task in training.
        before: walks over \bar F_o beside the same shards; None for the mean of F over each parameter.
        means: of F and \bar F_o, over the whole of each parameter.
        beta: \beta, the weight where F says nothing.
        power: q.
    """

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
        super().__init__(beta)
        self._engine, self._moments, self._before, self._means = engine, moments, before, means
        self._power = power
        self._scratch = torch.empty(2, 0, dtype=torch.float64)
        self._sums: dict[tuple[str, torch.device], Tensor] = {}
        self._counts = dict.fromkeys(_KINDS, 0)

    def of(self, block: Block) -> Tensor:
        f, f_o = self._scratch_for(block)
        # A parameter without any F: every scale gives the same, but 0.
        scale = self._means[block.shard.name] or 1.0
        self._moments.of_block(block, f).div_(scale)
        if self._before is None:
            f_o.fill_(self._means[block.shard.name] / scale)
        else:
            f_o.copy_(self._beside(block).values).div_(scale)
        weights = anchor_weight(f, f_o, self.beta, self._power)
        kind = parameter_kind(block.shard.name)
        self._sums[kind, weights.device] = self._sums.get((kind, weights.device), 0) + weights.sum()
        self._counts[kind] += weights.numel()
        return weights

    def means(self) -> dict[str, float]:
        """Mean weight over all entries, and over those of each kind of parameter; a collective call."""
        local = [
            [sum(float(value) for (of, _), value in self._sums.items() if of == kind), self._counts[kind]]
            for kind in _KINDS
        ]
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

    def _scratch_for(self, block: Block) -> Tensor:
        numel, device = block.theta.numel(), block.theta.device
        if self._scratch.device != device or self._scratch.shape[1] < numel:
            self._scratch = torch.empty(2, numel, dtype=torch.float64, device=device)
        return self._scratch[:, :numel]
