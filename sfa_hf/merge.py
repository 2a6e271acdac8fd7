r"""One merge: every shard of this rank, block by block, with the distance to the anchor before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfa_hf.anchor import Anchor, Block
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.rounding import round_stochastically
from sfa_hf.rules import Rule


@dataclass(frozen=True)
class Merged:
    r"""What a merge did, over all ranks.

    Attributes:
        drift_before: ||theta - theta_o||_2 over the merged parameters, just before.
        drift_after: the same, just after.
        nbytes: bytes of theta_o that were read; under DDP those of one replica.
    """

    drift_before: float
    drift_after: float
    nbytes: int


@torch.no_grad()
def merge(
    engine: Engine, shards: Sequence[Shard], anchor: Anchor, *, rule: Rule, beta: float, seed: tuple[int, ...]
) -> Merged:
    """Apply ``rule`` to the shards and publish them.

    Arithmetic is in fp32 (fp64 for fp64 weights). Weights kept in 16 bits alone are rounded stochastically,
    the same way on every replica.

    Args:
        engine: where the weights live.
        shards: this rank's part of what is merged; may be empty.
        anchor: theta_o of these shards.
        rule: edits theta given theta_o.
        beta: weight of the anchor.
        seed: of the stochastic rounding, e.g. the run's seed and the step.
    """
    before, after = _Drift(), _Drift()
    for block in anchor.blocks(shards):
        theta, theta_o = _widened(block)
        before.add(theta, theta_o)
        rule(theta, theta_o, beta)
        _write_back(theta, block, seed)
        after.add(theta, theta_o)
    engine.publish()
    local = torch.tensor([before.squared(), after.squared(), anchor.nbytes], dtype=torch.float64)
    squared_before, squared_after, nbytes = engine.sum_over_shards(local).tolist()
    return Merged(squared_before**0.5, squared_after**0.5, int(nbytes))


def _widened(block: Block) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(block.theta.dtype, torch.float32)
    return block.theta.to(dtype), block.theta_o.to(dtype)


def _write_back(theta: Tensor, block: Block, seed: tuple[int, ...]) -> None:
    """Round ``theta`` into the shard, unless it is the shard's memory; ``theta`` becomes what was kept."""
    if theta.dtype == block.theta.dtype:
        return
    round_stochastically(theta, block.theta, _generator(block, seed))
    theta.copy_(block.theta)


def _generator(block: Block, seed: tuple[int, ...]) -> torch.Generator:
    key = repr((seed, block.shard.name, block.shard.offset + block.start)).encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator(block.theta.device).manual_seed(int.from_bytes(digest, "little") >> 1)


class _Drift:
    r"""The sum over blocks of ||theta - theta_o||^2, added up in fp64."""

    def __init__(self) -> None:
        self._sums: dict[torch.device, Tensor] = {}
        self._scratch = torch.empty(0)

    def add(self, theta: Tensor, theta_o: Tensor) -> None:
        same_kind = (self._scratch.device, self._scratch.dtype) == (theta.device, theta.dtype)
        if not same_kind or self._scratch.numel() < theta.numel():
            self._scratch = torch.empty_like(theta)
        difference = torch.sub(theta, theta_o, out=self._scratch[: theta.numel()])
        squared = torch.linalg.vector_norm(difference).double().square()
        self._sums[theta.device] = self._sums.get(theta.device, 0) + squared

    def squared(self) -> float:
        return sum(total.item() for total in self._sums.values())
