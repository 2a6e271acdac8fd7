"""An anchor gives each element of each shard once, beside its own value, however it is cut and streamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sfa_hf.engines import Shard
from sfa_hf.shards import buffer, streaming
from sfa_hf.shards.buffer import ShardBuffer, cut
from sfa_hf.shards.store import Place, Store, open_store

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="streams to a GPU")


def shards_of(sizes: list[int], device: str = "cpu") -> list[Shard]:
    """Shards whose values count up, over all of them."""
    values = torch.arange(sum(sizes), dtype=torch.float32, device=device)
    return [Shard(str(i), data, 0, data.shape) for i, data in enumerate(values.split(sizes))]


def buffer_of(shards: list[Shard], store: str = "cpu", dtype: torch.dtype = torch.float32) -> ShardBuffer:
    return ShardBuffer(shards, lambda shard: shard.data, open_store(store, shards, dtype, Path()))


def visited(blocks) -> list[float]:
    seen: list[Tensor] = []
    for block in blocks:
        assert block.theta.equal(block.values.to(block.theta.dtype))
        assert block.theta.equal(block.shard.data[block.start : block.start + block.theta.numel()])
        seen.append(block.theta.clone())
    return torch.cat([torch.empty(0), *(theta.cpu() for theta in seen)]).tolist()


@given(st.lists(st.integers(0, 12), max_size=6), st.integers(1, 9), st.integers(1, 9))
def test_buckets_and_blocks_of_any_size_cover_the_shards_once(
    sizes: list[int], bucket: int, block: int
) -> None:
    shards, total = shards_of(sizes), sum(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffer, "_CPU_BLOCK", block)
        buckets = torch.arange(total, dtype=torch.float32).split(bucket)
        blocks = [b for i, values in enumerate(buckets) for b in cut(shards, i * bucket, values) if total]
    assert visited(blocks) == list(range(total))


def test_shards_that_changed_are_refused() -> None:
    taken = buffer_of(shards_of([3, 2]))
    with pytest.raises(RuntimeError, match="trainable parameters changed"):
        list(taken.blocks(shards_of([3, 2, 1])))


class Counting(Store):
    """Keeps ranges of three elements apart, and checks how it is asked."""

    name = "counting"
    at_once = 3

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.kept: dict[int, Tensor] = {}

    @property
    def nbytes(self) -> int:
        return 4 * self.place.numel

    def put(self, start: int, values: Tensor) -> None:
        assert start % 3 == 0
        assert values.numel() == min(3, self.place.numel - start)
        self.kept[start] = values.clone()

    def get(self, start: int, end: int) -> Tensor:
        assert end == start + self.kept[start].numel()
        return self.kept[start].clone()


@given(st.lists(st.integers(0, 12), max_size=6))
def test_a_store_of_ranges_gives_what_was_read_and_keeps_what_was_edited(sizes: list[int]) -> None:
    shards = shards_of(sizes)
    kept = ShardBuffer(shards, lambda shard: shard.data, Counting(Place(shards, torch.float32, Path())))
    assert visited(kept.blocks(shards)) == visited(kept.pieces(shards)) == list(range(sum(sizes)))
    for block in kept.edit(shards):
        block.values.mul_(2)
    doubled = [value for block in kept.blocks(shards) for value in block.values.tolist()]
    assert doubled == [2 * value for value in range(sum(sizes))]


@pytest.mark.parametrize("store", ["cpu", "disk"])
def test_a_flat_store_gives_views(store: str, tmp_path: Path) -> None:
    shards = shards_of([5, 7])
    opened = open_store(store, shards, torch.float32, tmp_path / "a" / "b")
    kept = ShardBuffer(shards, lambda shard: shard.data, opened)
    for block in kept.pieces(shards):
        assert block.values.untyped_storage().data_ptr() == opened.get(0, 12).untyped_storage().data_ptr()


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("store", ["cpu", "device"])
@pytest.mark.parametrize("prefetch", [False, True])
def test_streaming_to_a_gpu(
    dtype: torch.dtype, store: str, prefetch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BUCKET", 1024)
    shards = shards_of([7, 0, 5000, 1, 20000, 333], "cuda")
    for shard in shards:
        shard.data.remainder_(256)  # exact in bfloat16
    taken = buffer_of(shards, store, dtype)
    if prefetch:
        taken.prefetch(shards)
    assert visited(taken.blocks(shards)) == torch.cat([shard.data for shard in shards]).tolist()


@needs_gpu
def test_page_locked_memory_takes_no_more_than_the_anchor() -> None:
    kept = open_store("cpu", shards_of([5000], "cuda"), torch.float32, Path()).get(0, 5000)
    assert kept.is_pinned()
    assert kept.untyped_storage().nbytes() == 20000
