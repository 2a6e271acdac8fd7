"""The order of shards in a buffer, and parts of a shard that are shards themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sfa_hf.engines.base import Shard

_PART = 2**20
"""Elements read at once."""


def by_device(shards: Sequence[Shard]) -> list[Shard]:
    """Order shards as a buffer holds them: those of one device together."""
    return sorted(shards, key=lambda shard: str(shard.data.device))


def parts(shard: Shard) -> Iterator[Shard]:
    """Cut a shard into parts that are shards themselves, small enough to work on in fp64."""
    for start in range(0, shard.data.numel(), _PART):
        yield replace(shard, data=shard.data[start : start + _PART], offset=shard.offset + start)
