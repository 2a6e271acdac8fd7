r"""F of the task in training: Adam's second moment without its bias towards zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.engines.optimizers import second_moment_decay
from sfa_hf.shards.buffer import Block

_BLOCK = 2**20
"""Elements converted at once: 8 MiB of fp64."""


class SecondMoments:
    r"""\hat v = exp_avg_sq / (1 - \beta_2^t) of this rank's shards, t the optimizer's own count of its steps.

    A parameter that no step has touched yet has F = 0.

    Args:
        engine: where the optimizer's state lives.
        optimizer: in any of accelerate's and DeepSpeed's wrappers.

    Attributes:
        decay: \beta_2.

    Raises:
        NotImplementedError: the optimizer keeps no such moment, or in another form; or the weights that it
            steps are in 16 bits, and its moments with them: v times 0.999 is then rounded back to v.
    """

    def __init__(self, engine: Engine, optimizer: Any) -> None:
        self._engine = engine
        self.decay = second_moment_decay(optimizer)
        narrow = {str(shard.data.dtype) for shard in engine.shards() if shard.data.dtype.itemsize < 4}
        if narrow:
            raise NotImplementedError(
                f"second moments of weights in {', '.join(sorted(narrow))} are too rounded to weigh a merge; "
                "supported: weights loaded in float32, computed in 16 bits by bf16=True"
            )

    def of_shard(self, shard: Shard) -> Tensor:
        """F of a shard, rounded to fp32, where the shard is; a new tensor."""
        f = torch.zeros_like(shard.data, dtype=torch.float32)
        biased = self._engine.optimizer_state("exp_avg_sq", shard)
        if biased is not None:
            correction = self._correction(shard)
            for out, part in zip(f.split(_BLOCK), biased.split(_BLOCK), strict=True):
                out.copy_(part.double().div_(correction))
        return f

    def of_block(self, block: Block, out: Tensor) -> Tensor:
        """Put a block's F into ``out``: fp64, of the block's size and device; returns it."""
        biased = self._engine.optimizer_state("exp_avg_sq", block.shard)
        if biased is None:
            return out.zero_()
        part = biased[block.start : block.start + block.theta.numel()]
        return out.copy_(part).div_(self._correction(block.shard))

    def sums(self, shards: Sequence[Shard]) -> Mapping[str, float]:
        """Sum of F over this rank's part of each parameter, by name."""
        sums = {shard.name: self._biased_sum(shard) for shard in shards}
        return {shard.name: sums[shard.name].item() / self._correction(shard) for shard in shards}

    def steps(self, shards: Sequence[Shard]) -> int:
        """The most steps that the state of any of the shards has seen."""
        return max((self._engine.optimizer_steps(shard) or 0 for shard in shards), default=0)

    def _biased_sum(self, shard: Shard) -> Tensor:
        biased = self._engine.optimizer_state("exp_avg_sq", shard)
        return torch.zeros((), dtype=torch.float64) if biased is None else biased.sum(dtype=torch.float64)

    def _correction(self, shard: Shard) -> float:
        steps = self._engine.optimizer_steps(shard)
        return 1 - self.decay**steps if steps else 1.0
