r"""The anchor \theta_o of this rank: the shards that it owns, kept in one flat buffer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sfa_hf.engines.base import Shard
from sfa_hf.shards.streaming import HostToDevice

_CPU_BLOCK = 2**15
"""Elements a thread that a merge handles at once: what the cache holds."""
_GPU_BLOCK = 2**20
"""Elements that a merge handles at once: enough to keep a GPU busy, with 24 MiB of fp64 scratch."""

Allocate = Callable[[int, torch.dtype], Tensor]
"""``allocate(numel, dtype)`` returns the flat buffer of an anchor."""


class Block(NamedTuple):
    r"""A piece of a shard beside its anchor: what a merge handles at once.

    Attributes:
        shard: the shard that the piece is cut from.
        start: index of the piece's first element in ``shard.data``.
        theta: view of ``shard.data``; edit it in place.
        theta_o: the anchor of the same elements, in the anchor's dtype, on theta's device; valid until the
            next block.
    """

    shard: Shard
    start: int
    theta: Tensor
    theta_o: Tensor


class Anchor:
    r"""\theta_o in the layout of this rank's shards.

    Args:
        shards: what to anchor.
        read: gives the anchor's values of a shard: one-dimensional, any dtype and device.
        dtype: torch.float32 or torch.bfloat16, as kept.
        allocate: where it is kept.
    """

    def __init__(
        self, shards: Sequence[Shard], read: Callable[[Shard], Tensor], dtype: torch.dtype, allocate: Allocate
    ) -> None:
        shards = by_device(shards)
        self._layout = [_place(shard) for shard in shards]
        self._buffer = allocate(sum(shard.data.numel() for shard in shards), dtype)
        self._prefetched: HostToDevice | None = None
        for shard, values in self.pieces(shards):
            values.copy_(read(shard))

    @property
    def values(self) -> Tensor:
        """The whole buffer: the shards of :func:`by_device`, end to end."""
        return self._buffer

    @property
    def nbytes(self) -> int:
        """Bytes that the anchor takes on this rank."""
        return self._buffer.numel() * self._buffer.element_size()

    def pieces(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Tensor]]:
        """Give each shard's place in the buffer."""
        at = 0
        for shard in by_device(shards):
            end = at + shard.data.numel()
            yield shard, self._buffer[at:end]
            at = end

    def prefetch(self, shards: Sequence[Shard]) -> None:
        """Start to bring the first bucket to the shards' device, if the anchor is not there."""
        for device, _, values in self._groups(shards):
            if device.type == "cuda" and values.device != device:
                self._prefetched = HostToDevice(values, device)
                return

    def blocks(self, shards: Sequence[Shard]) -> Iterator[Block]:
        """Walk over the shards beside their anchor.

        Args:
            shards: the shards that the anchor was made of, as the engine gives them now, in any order.
        """
        for device, group, values in self._groups(shards):
            start = 0
            for bucket in self._buckets(values, device):
                yield from cut(group, start, bucket)
                start += bucket.numel()

    def _groups(self, shards: Sequence[Shard]) -> Iterator[tuple[torch.device, list[Shard], Tensor]]:
        shards = by_device(shards)
        if [_place(shard) for shard in shards] != self._layout:
            raise RuntimeError("the trainable parameters changed after the anchor was taken")
        at = 0
        for device, same in itertools.groupby(shards, lambda shard: shard.data.device):
            group = list(same)
            end = at + sum(shard.data.numel() for shard in group)
            if end > at:
                yield device, group, self._buffer[at:end]
            at = end

    def _buckets(self, values: Tensor, device: torch.device) -> Iterable[Tensor]:
        if values.device == device:
            return [values]
        prefetched, self._prefetched = self._prefetched, None
        return prefetched or HostToDevice(values, device)


def cut(shards: Sequence[Shard], start: int, bucket: Tensor) -> Iterator[Block]:
    """Cut a bucket into blocks, each in one shard.

    Args:
        shards: laid end to end.
        start: where in them the bucket begins.
        bucket: theta_o of the elements from there on, on the shards' device.
    """
    limit = _GPU_BLOCK if bucket.is_cuda else _CPU_BLOCK * torch.get_num_threads()
    begin = -start
    for shard in shards:
        end = begin + shard.data.numel()
        for low in range(max(begin, 0), min(end, bucket.numel()), limit):
            values = bucket[low : min(low + limit, end)]
            theta = shard.data[low - begin : low - begin + values.numel()]
            yield Block(shard, low - begin, theta, values)
        begin = end


def by_device(shards: Sequence[Shard]) -> list[Shard]:
    """Order shards as an anchor's buffer holds them: those of one device together."""
    return sorted(shards, key=lambda shard: str(shard.data.device))


def _place(shard: Shard) -> tuple[str, int, int]:
    return shard.name, shard.offset, shard.data.numel()


_PART = 2**20
"""Elements read at once."""


def parts(shard: Shard) -> Iterator[Shard]:
    """Cut a shard into parts that are shards themselves, small enough to work on in fp64."""
    for start in range(0, shard.data.numel(), _PART):
        yield replace(shard, data=shard.data[start : start + _PART], offset=shard.offset + start)
