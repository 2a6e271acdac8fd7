"""Writing merged weights; stochastically rounded where 16 bits hold them, moved by less than an ulp."""

from __future__ import annotations

import torch
from torch import Tensor

from sfa_hf.distributed.seeds import seed_from
from sfa_hf.shards.buffer import Block

_DROPPED_BITS = {torch.bfloat16: 16, torch.float16: 13}
_SMALLEST_NORMAL_HALF = 2.0**-14
_HALF_SUBNORMAL_STEP = 2.0**-24


def round_stochastically(exact: Tensor, out: Tensor, generator: torch.Generator) -> None:
    """Round ``exact`` to one of its two neighbours in ``out``'s dtype, the nearer the likelier.

    Unbiased: the expected value of ``out`` is ``exact``. Representable values stay as they are.

    Args:
        exact: fp32, contiguous.
        out: bfloat16 or float16, same shape and device; written.
        generator: the source of randomness, on the same device.
    """
    bits = _DROPPED_BITS[out.dtype]
    noise = torch.randint(
        0, 1 << bits, exact.shape, dtype=torch.int32, device=exact.device, generator=generator
    )
    rounded = ((exact.view(torch.int32) + noise) & -(1 << bits)).view(torch.float32)
    if out.dtype == torch.float16:
        steps = (exact / _HALF_SUBNORMAL_STEP + noise / (1 << bits)).floor()
        rounded = torch.where(exact.abs() < _SMALLEST_NORMAL_HALF, steps * _HALF_SUBNORMAL_STEP, rounded)
    out.copy_(torch.where(exact.isfinite(), rounded, exact))


def write(merged: Tensor, block: Block, seed: tuple[int, ...]) -> None:
    """Write merged values into a block's weights.

    Args:
        merged: fp64, of the block's shape and device.
        block: of the weights; 16-bit ones without fp32 masters are rounded stochastically.
        seed: of the rounding: the same one rounds the same way on every replica.
    """
    if block.theta.dtype.itemsize >= 4:
        block.theta.copy_(merged)
    else:
        own = seed_from(seed, block.shard.name, block.shard.offset + block.start)
        generator = torch.Generator(block.theta.device).manual_seed(own)
        round_stochastically(merged.float(), block.theta, generator)
