"""A KV cache that also holds tangents, for generation with a linearised model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sfa_hf.linearised.refusals import refuse

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each block, of shape [batch, heads, tokens, head size]."""


def split(cache: DynamicCache) -> tuple[Layers, Layers]:
    """Split the cache into keys and values and their tangents.

    A linearised model stores both in the cache that ``generate`` made, side by side in the last dimension.
    Code that reorders, repeats or crops rows and tokens there therefore treats both alike.

    Raises:
        NotImplementedError: the cache is of another kind.
    """
    if type(cache) is not DynamicCache or any(type(each) is not DynamicLayer for each in cache.layers):
        raise refuse(f"generation with a {type(cache).__name__}", "DynamicCache without a sliding window")
    filled = [each for each in cache.layers if each.get_seq_length()]
    halves = [(each.keys.chunk(2, -1), each.values.chunk(2, -1)) for each in filled]
    return [(k[0], v[0]) for k, v in halves], [(k[1], v[1]) for k, v in halves]


def store(cache: DynamicCache, layers: Layers, tangents: Layers) -> None:
    """Replace the content of the cache; the inverse of :func:`split`."""
    for index, (own, tangent) in enumerate(zip(layers, tangents, strict=True)):
        keys, values = (torch.cat(pair, -1) for pair in zip(own, tangent, strict=True))
        if index < len(cache.layers) and cache.layers[index].get_seq_length():
            cache.layers[index].keys, cache.layers[index].values = keys, values
        else:
            cache.update(keys, values, index)


def filled_with(layers: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    """Return an ordinary cache with these keys and values."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    return cache


def contents(cache: DynamicCache) -> Layers:
    """Return keys and values of an ordinary cache."""
    return [(each.keys, each.values) for each in cache.layers]
