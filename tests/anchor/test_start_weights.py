"""Start weights saved by any number of ranks are read by any other, each its own slices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from sfa_hf.anchor.start_weights import StartWeights
from sfa_hf.engines import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.shards import file as shard_file
from sfa_hf.shards.fingerprint import fingerprint


class Alone:
    """The one question that a fingerprint asks of an engine, for ranks that are hashed one by one."""

    def sum_over_shards(self, values: Tensor) -> Tensor:
        return values


def whole(sizes: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"layer.{i}": torch.randn(size, generator=generator) for i, size in enumerate(sizes)}


def shards(parameters: dict[str, Tensor], ranks: int, rank: int) -> list[Shard]:
    """Each parameter in equal parts, the last ones short or empty, as ZeRO-3 cuts them."""
    found = []
    for name, values in parameters.items():
        part = -(-values.numel() // ranks)
        first = min(part * rank, values.numel())
        found.append(Shard(name, values[first : first + part].clone(), first, values.shape))
    return found


def save(folder: Path, parameters: dict[str, Tensor], ranks: int) -> None:
    for rank in range(ranks):
        mine = shards(parameters, ranks, rank)
        values = torch.cat([shard.data for shard in mine]) if mine else torch.empty(0)
        shard_file.write(folder / f"{rank:05d}-of-{ranks:05d}.safetensors", mine, [values], values.dtype)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 17), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_any_number_of_ranks_reads_what_any_other_saved(sizes: list[int], wrote: int, reads: int) -> None:
    parameters = whole(sizes)
    with tempfile.TemporaryDirectory() as name:
        save(Path(name), parameters, wrote)
        kept = StartWeights(Path(name))
        for rank in range(reads):
            for shard in shards(parameters, reads, rank):
                assert kept.read(shard).equal(shard.data)


@settings(deadline=None)
@given(st.lists(st.integers(0, 17), min_size=1, max_size=4), st.integers(1, 5))
def test_the_fingerprint_does_not_depend_on_how_the_weights_are_cut(sizes: list[int], ranks: int) -> None:
    parameters = whole(sizes)
    parts = [
        int(fingerprint(Alone(), [(s, s.data) for s in shards(parameters, ranks, rank)]), 16)
        for rank in range(ranks)
    ]
    one = fingerprint(Alone(), [(s, s.data) for s in shards(parameters, 1, 0)])
    assert f"{sum(parts) % 2**64:016x}" == one


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_changed_bit_a_moved_value_and_another_name_are_told(size: int, data: st.DataObject) -> None:
    values = whole([size])["layer.0"]
    at = data.draw(st.integers(0, size - 1))
    original = fingerprint(Alone(), [(Shard("a", values, 0, values.shape), values)])
    flipped = values.clone()
    flipped.view(torch.int32)[at] ^= 1 << data.draw(st.integers(0, 30))
    assert fingerprint(Alone(), [(Shard("a", flipped, 0, values.shape), flipped)]) != original
    assert fingerprint(Alone(), [(Shard("b", values, 0, values.shape), values)]) != original
    if size > 1:
        rolled = values.roll(1)
        assert fingerprint(Alone(), [(Shard("a", rolled, 0, values.shape), rolled)]) != original


def test_the_file_is_safetensors_by_the_parameters_names(tmp_path: Path) -> None:
    parameters = whole([5, 0, 3])
    save(tmp_path, parameters, 1)
    stored = load_file(tmp_path / "00000-of-00001.safetensors")
    assert all(stored[name].equal(values) for name, values in parameters.items())


def test_a_missing_rank_is_told_by_the_parameter(tmp_path: Path) -> None:
    parameters = whole([6])
    save(tmp_path, parameters, 2)
    (tmp_path / "00001-of-00002.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"does not hold all of layer\.0"):
        StartWeights(tmp_path).read(shards(parameters, 1, 0)[0])
