"""Bringing a flat tensor from host memory to the device, bucket by bucket, beside other work."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BUCKET = 2**22
"""Elements of each of the two device buffers, 16 MiB of fp32: with the blocks' scratch, at most 64 MiB of
device memory at a merge. Two tensors of one layout come in the same buckets, whatever their dtypes."""


class HostToDevice:
    """Streams ``source`` through two device buffers on a side stream; the first copy starts at once.

    Copies overlap with the current stream's work if ``source`` is pinned.

    Args:
        source: one-dimensional, in host memory.
        device: a CUDA device.
    """

    def __init__(self, source: Tensor, device: torch.device) -> None:
        numel = max(1, min(source.numel(), BUCKET))
        self._buckets = source.split(numel)
        self._current = torch.cuda.current_stream(device)
        self._side = torch.cuda.Stream(device)
        self._buffers = [torch.empty(numel, dtype=source.dtype, device=device) for _ in range(2)]
        self._filled = [torch.cuda.Event(), torch.cuda.Event()]
        self._free = [torch.cuda.Event(), torch.cuda.Event()]
        for event in self._free:
            event.record(self._current)
        self._copy(0)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each bucket in order, on the device; it is valid until the next one is asked for."""
        for index, bucket in enumerate(self._buckets):
            if index + 1 < len(self._buckets):
                self._copy(index + 1)
            self._current.wait_event(self._filled[index % 2])
            yield self._buffers[index % 2][: bucket.numel()]
            self._free[index % 2].record(self._current)

    def _copy(self, index: int) -> None:
        bucket, slot = self._buckets[index], index % 2
        with torch.cuda.stream(self._side):
            self._side.wait_event(self._free[slot])
            self._buffers[slot][: bucket.numel()].copy_(bucket, non_blocking=True)
            self._filled[slot].record(self._side)
