"""Where a buffer's values are kept: what a store is, and the stores by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sfa_hf.engines.base import Shard
from sfa_hf.registry import classes, plugins
from sfa_hf.shards import file as shard_file
from sfa_hf.shards.layout import by_device

_WRITTEN = 2**24
"""Elements written to a file at once."""


@dataclass(frozen=True)
class Place:
    """What a store will hold, and where it may.

    Attributes:
        shards: whose values, in the order of the store.
        dtype: of the values as they are given back: torch.float32 or torch.bfloat16.
        file: of this rank and for this store alone; the folder may have to be made.
    """

    shards: Sequence[Shard]
    dtype: torch.dtype
    file: Path

    @property
    def numel(self) -> int:
        """Elements of all shards."""
        return sum(shard.data.numel() for shard in self.shards)

    @property
    def devices(self) -> set[torch.device]:
        """Where the shards are."""
        return {shard.data.device for shard in self.shards}

    @property
    def device(self) -> torch.device:
        """The accelerator on which shards are; the CPU where none is."""
        return next((device for device in self.devices if device.type != "cpu"), torch.device("cpu"))


class Store(ABC):
    """Keeps the values of a :class:`sfa_hf.shards.buffer.ShardBuffer`: ``place.numel`` of them, end to end.

    A subclass in a file of ``sfa_hf/shards/stores/`` is what ``anchor_device`` names.

    Attributes:
        name: the value of ``anchor_device``.
        at_once: how many elements are put and got at once. A store that packs values says a number: it is
            then asked for the ranges [0, at_once), [at_once, 2 at_once) ... alone, each first put, in order,
            before any is got. None for any range, without a copy.
        exact: whether values come back as they were put, to ``place.dtype``.
        in_file: whether it keeps them in ``place.file``.
        place: what it holds.
    """

    name: ClassVar[str]
    at_once: ClassVar[int | None] = None
    exact: ClassVar[bool] = True
    in_file: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self.place = place

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that it takes on this rank."""

    @abstractmethod
    def put(self, start: int, values: Tensor) -> None:
        """Keep the values of a range.

        Args:
            start: of the range.
            values: one-dimensional, of any floating dtype; in host memory, if ``at_once`` is a number.
        """

    @abstractmethod
    def get(self, start: int, end: int) -> Tensor:
        """Give the values of a range in ``place.dtype``, one-dimensional, on any device."""

    def save(self, path: Path) -> None:
        """Write all values to a safetensors file of the shards, and see it on the disk."""
        shard_file.write(path, self.place.shards, self._all(), self.place.dtype)

    def release(self) -> None:
        """The values are no longer used."""
        return

    def _all(self) -> Iterator[Tensor]:
        size = self.at_once or _WRITTEN
        for start in range(0, self.place.numel, size):
            yield self.get(start, min(start + size, self.place.numel))


class FlatStore(Store):
    """A store that is one flat tensor: what it gives are views, which may be edited in place."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._values = self.allocate()

    @abstractmethod
    def allocate(self) -> Tensor:
        """Return the tensor, not yet filled."""

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def put(self, start: int, values: Tensor) -> None:
        own = self._values[start : start + values.numel()]
        if own.data_ptr() != values.data_ptr():  # or it is the view that get gave
            own.copy_(values)

    def get(self, start: int, end: int) -> Tensor:
        return self._values[start:end]


@cache
def known_stores() -> dict[str, type[Store]]:
    """Every store by its name."""
    return plugins("sfa_hf.shards.stores", classes(Store))


def open_store(name: str, shards: Sequence[Shard], dtype: torch.dtype, file: Path) -> Store:
    """Open a store for the values of shards.

    Args:
        name: one of :func:`known_stores`.
        shards: whose values, in any order.
        dtype: torch.float32 or torch.bfloat16.
        file: of this rank, for a store that keeps values in one.

    Raises:
        ConfigError: there is no room, or the store does not suit where the shards are.
    """
    return known_stores()[name](Place(by_device(shards), dtype, file))
