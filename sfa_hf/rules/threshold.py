"""The exact k-th largest magnitude of vectors that are never held as a whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfa_hf.rules.base import Block, Survey

_DIGIT_BITS = 16
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Thresholds(Survey):
    r"""For each task vector \tau_k the magnitude of its ``keep``-th largest entry: a radix selection.

    Magnitudes of floats are ordered as their bit patterns are. The first pass counts the patterns by their
    first 16 bits, which tells the bucket that holds the threshold; each further pass counts the entries of
    that bucket by their next 16 bits: two passes for fp32, four for fp64. Counts are whole numbers, so the
    result depends on no order, block size or number of threads.

    Args:
        models: number of task vectors.
        keep: how many entries of each have at least the threshold's magnitude.
        dtype: float32 or float64, of the blocks.
    """

    def __init__(self, models: int, keep: int, dtype: torch.dtype) -> None:
        self._dtype = dtype
        magnitude_bits = dtype.itemsize * 8 - 1
        self._shifts = [
            max(0, magnitude_bits - _DIGIT_BITS * (i + 1)) for i in range(-(-magnitude_bits // 16))
        ]
        self.passes = len(self._shifts)
        self._level = 0
        self._prefixes = [0] * models
        self._remaining = [keep] * models

    def measure(self, block: Block) -> Tensor:
        """Count a block's magnitudes by the digit of this pass: [models, 2^16]."""
        return torch.stack([self._count(tau, k) for k, tau in enumerate(block.task_vectors())])

    def conclude(self, total: Tensor) -> None:
        """Go down into the bucket that holds each threshold."""
        width = self._digit_bits()
        for k, counts in enumerate(total):
            from_the_top = counts.flip(0).cumsum(0)
            above = int((from_the_top < self._remaining[k]).sum())
            if above:
                self._remaining[k] -= int(from_the_top[above - 1])
            self._prefixes[k] = self._prefixes[k] << width | (len(counts) - 1 - above)
        self._level += 1

    def values(self) -> list[float]:
        """The thresholds, one a task vector."""
        assert self._level == self.passes
        return torch.tensor(self._prefixes, dtype=_INTEGERS[self._dtype]).view(self._dtype).tolist()

    def _count(self, tau: Tensor, k: int) -> Tensor:
        bits = tau.abs_().view(_INTEGERS[self._dtype])
        shift, width = self._shifts[self._level], self._digit_bits()
        digits = bits >> shift
        if self._level:
            in_bucket = np.flatnonzero(
                (digits >> width).numpy() == self._prefixes[k]
            )  # few: faster than a mask
            digits = digits[torch.from_numpy(in_bucket)] & ((1 << width) - 1)
        return torch.bincount(digits, minlength=1 << width)

    def _digit_bits(self) -> int:
        above = self._shifts[self._level - 1] if self._level else self._dtype.itemsize * 8 - 1
        return above - self._shifts[self._level]
