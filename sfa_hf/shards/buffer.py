"""Values in the layout of this rank's shards: an anchor, an average, a Fisher, second moments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.shards.fingerprint import fingerprint
from sfa_hf.shards.layout import by_device
from sfa_hf.shards.store import Store
from sfa_hf.shards.streaming import HostToDevice

_CPU_BLOCK = 2**15
"""Elements a thread that a merge handles at once: what the cache holds."""
_GPU_BLOCK = 2**20
"""Elements that a merge handles at once: enough to keep a GPU busy, with 24 MiB of fp64 scratch."""
_PIECE = 2**20
"""Elements of a piece: small enough to work on in fp64."""


class Block(NamedTuple):
    r"""A piece of a shard beside a buffer's values of the same elements: what is handled at once.

    Attributes:
        shard: the shard that the piece is cut from.
        start: index of the piece's first element in ``shard.data``.
        theta: view of ``shard.data``; edit it in place.
        values: the buffer's, in its dtype; valid until the next block.
    """

    shard: Shard
    start: int
    theta: Tensor
    values: Tensor

    @property
    def part(self) -> Shard:
        """The piece as a shard of its own."""
        return replace(self.shard, data=self.theta, offset=self.shard.offset + self.start)


class ShardBuffer:
    r"""One value for each element of this rank's shards, such as \theta_o, kept in a store.

    Args:
        shards: whose layout it has.
        read: gives a shard's values: one-dimensional, any dtype and device, or one number for all of them.
        store: for these shards, from :func:`sfa_hf.shards.store.open_store`.
    """

    def __init__(self, shards: Sequence[Shard], read: Callable[[Shard], Tensor], store: Store) -> None:
        self._layout = [_place(shard) for shard in by_device(shards)]
        self._store = store
        self._numel = sum(shard.data.numel() for shard in shards)
        self._prefetched: HostToDevice | None = None
        whole = (read(shard).expand(shard.data.numel()) for shard in by_device(shards))
        start = 0
        for values in _regrouped(whole, store.at_once):
            store.put(start, values)
            start += values.numel()

    @property
    def nbytes(self) -> int:
        """Bytes that the values take on this rank."""
        return self._store.nbytes

    def prefetch(self, shards: Sequence[Shard]) -> None:
        """Start to bring the first values to the shards' device, if they are not there."""
        if self._store.at_once is None:
            for device, _, first, last in self._groups(shards):
                values = self._store.get(first, last)
                if device.type == "cuda" and values.device != device:
                    self._prefetched = HostToDevice(values, device)
                    return

    def blocks(self, shards: Sequence[Shard]) -> Iterator[Block]:
        """Walk over the shards beside the buffer's values, which come to the shards' device.

        Args:
            shards: those that the buffer was made for, as the engine gives them now, in any order.
        """
        for device, group, first, last in self._groups(shards):
            start = 0
            for values in self._on_device(device, first, last):
                yield from cut(group, start, values)
                start += values.numel()

    def pieces(self, shards: Sequence[Shard]) -> Iterator[Block]:
        """Walk over the shards beside the buffer's values, as and where they are kept."""
        return self._kept(shards, edit=False)

    def edit(self, shards: Sequence[Shard]) -> Iterator[Block]:
        """Like :meth:`pieces`; edits of a block's values are kept. Walk to the end."""
        return self._kept(shards, edit=True)

    def fingerprint(self, engine: Engine, shards: Sequence[Shard]) -> str:
        """The fingerprint of the values over all ranks; a collective call."""
        return fingerprint(engine, ((block.part, block.values) for block in self.pieces(shards)))

    def save(self, path: Path) -> None:
        """Write this rank's values to a safetensors file, and see it on the disk."""
        self._store.save(path)

    def release(self) -> None:
        """Give back what only this process used."""
        self._store.release()

    def _kept(self, shards: Sequence[Shard], *, edit: bool) -> Iterator[Block]:
        for _, group, first, last in self._groups(shards):
            for low, high in self._ranges(first, last):
                values = self._store.get(low, high)
                start = max(low, first)
                yield from cut(group, start - first, values[start - low : last - low], limit=_PIECE)
                if edit:
                    self._store.put(low, values)

    def _groups(self, shards: Sequence[Shard]) -> Iterator[tuple[torch.device, list[Shard], int, int]]:
        """Give the shards of each device with the range that they have in the store."""
        shards = by_device(shards)
        if [_place(shard) for shard in shards] != self._layout:
            raise RuntimeError("the trainable parameters changed in training, after their values were taken")
        start = 0
        for device, same in itertools.groupby(shards, lambda shard: shard.data.device):
            group = list(same)
            end = start + sum(shard.data.numel() for shard in group)
            if end > start:
                yield device, group, start, end
            start = end

    def _ranges(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The ranges in which the store gives the elements from ``first`` to ``last``, or a little more."""
        size = self._store.at_once
        if size is None:
            yield first, last
            return
        for low in range(first - first % size, last, size):
            yield low, min(low + size, self._numel)

    def _on_device(self, device: torch.device, first: int, last: int) -> Iterable[Tensor]:
        if self._store.at_once is not None:
            for low, high in self._ranges(first, last):
                yield self._store.get(low, high)[max(first - low, 0) : last - low].to(device)
            return
        values = self._store.get(first, last)
        if values.device == device:
            yield values
            return
        prefetched, self._prefetched = self._prefetched, None
        yield from prefetched or HostToDevice(values, device)


def cut(shards: Sequence[Shard], start: int, values: Tensor, limit: int | None = None) -> Iterator[Block]:
    """Cut values into blocks, each in one shard.

    Args:
        shards: laid end to end.
        start: where in them the values begin.
        values: of the elements from there on.
        limit: elements in a block; what a merge handles at once by default.
    """
    limit = limit or (_GPU_BLOCK if values.is_cuda else _CPU_BLOCK * torch.get_num_threads())
    begin = -start
    for shard in shards:
        end = begin + shard.data.numel()
        for low in range(max(begin, 0), min(end, values.numel()), limit):
            own = values[low : min(low + limit, end)]
            theta = shard.data[low - begin : low - begin + own.numel()]
            yield Block(shard, low - begin, theta, own)
        begin = end


def _place(shard: Shard) -> tuple[str, int, int]:
    return shard.name, shard.offset, shard.data.numel()


def _regrouped(tensors: Iterable[Tensor], size: int | None) -> Iterator[Tensor]:
    """Cut tensors that lie end to end anew, into ``size`` elements each; None leaves them as they are."""
    if size is None:
        yield from tensors
        return
    held: list[Tensor] = []
    for tensor in tensors:
        rest = tensor
        while rest.numel():
            held.append(rest[: size - sum(map(len, held))])
            rest = rest[len(held[-1]) :]
            if sum(map(len, held)) == size:
                yield torch.cat([each.cpu() for each in held])
                held = []
    if held:
        yield torch.cat([each.cpu() for each in held])
