r"""The fingerprint of an anchor: whether two \theta_o are the same, however they are split and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines.base import Engine, Shard

# Odd 64-bit constants of SplitMix64 (Steele, Lea, Flood 2014), as signed integers.
_POSITION = 0x9E3779B97F4A7C15 - 2**64
_MIX = 0xBF58476D1CE4E5B9 - 2**64
_MIX_AGAIN = 0x94D049BB133111EB - 2**64
_LIMB_BITS = 16
_LIMBS = 4
_BLOCK = 2**18
"""Elements hashed at once: six passes over them stay in the cache."""


def fingerprint(engine: Engine, pieces: Iterable[tuple[Shard, Tensor]]) -> str:
    """Hash names, shapes, positions and values of an anchor, over all ranks; a collective call.

    Each element is mixed with its place in its parameter into 64 bits, and all are added modulo 2^64: a sum
    has no order, so that any number of processes, and any engine, gets the same fingerprint, without reading
    a byte again or gathering one. It is a guard against mistakes and decay, not against an adversary.

    Args:
        engine: which ranks own distinct shards.
        pieces: this rank's shards, each with the anchor's values: one-dimensional, any dtype and device.

    Returns:
        16 hexadecimal digits.
    """
    total = from_every_process(lambda: _hash_pieces(pieces))  # pieces may be read as they are hashed
    limbs = [total >> (_LIMB_BITS * i) & (2**_LIMB_BITS - 1) for i in range(_LIMBS)]
    # float64 is what an engine sums; sixteen bits each are exact there for 2^37 ranks.
    summed = engine.sum_over_shards(torch.tensor(limbs, dtype=torch.float64)).tolist()
    whole = sum(int(limb) << (_LIMB_BITS * i) for i, limb in enumerate(summed))
    return f"{whole % 2**64:016x}"


def fingerprint_of(pieces: Iterable[tuple[Shard, Tensor]]) -> str:
    """Like :func:`fingerprint`, of tensors that are whole on this process; no collective."""
    return f"{_hash_pieces(pieces):016x}"


def _hash_pieces(pieces: Iterable[tuple[Shard, Tensor]]) -> int:
    return sum((_hash_piece(shard, values) for shard, values in pieces), 0) % 2**64


def _hash_piece(shard: Shard, values: Tensor) -> int:
    key = f"{shard.name}{list(shard.shape)}".encode()
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little", signed=True)
    starts = range(0, values.numel(), _BLOCK)
    return sum(_hash_block(values[at : at + _BLOCK], shard.offset + at, seed) for at in starts)


def _hash_block(values: Tensor, position: int, seed: int) -> int:
    bits = values.float().view(torch.int32).long()
    places = torch.arange(position, position + values.numel(), device=values.device)
    mixed = bits.add_(places.mul_(_POSITION)).bitwise_xor_(seed)
    for multiplier in (_MIX, _MIX_AGAIN):
        mixed.bitwise_xor_(mixed >> 29).mul_(multiplier)
    return int(mixed.sum())
