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
from sfa_hf.shards.store import open_store

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
