"""One rank's shards in a safetensors file: each slice under its parameter's name, its place in the header."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sfa_hf.engines.base import Shard
from sfa_hf.files.safetensors_slices import open_tensors

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_ALIGNMENT = 64
_OFFSETS, _SHAPES = "offsets", "shapes"


def header(shards: Sequence[Shard], dtype: torch.dtype) -> bytes:
    """Build what precedes the data of a file that holds the shards end to end.

    Args:
        shards: in the order of the data.
        dtype: torch.float32 or torch.bfloat16.
    """
    tensors: dict[str, object] = {
        "__metadata__": {
            _OFFSETS: json.dumps({shard.name: shard.offset for shard in shards}),
            _SHAPES: json.dumps({shard.name: list(shard.shape) for shard in shards}),
        }
    }
    at = 0
    for shard in shards:
        end = at + shard.data.numel() * dtype.itemsize
        tensors[shard.name] = {
            "dtype": _DTYPES[dtype],
            "shape": [shard.data.numel()],
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(tensors).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write(path: Path, shards: Sequence[Shard], parts: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Write a file part by part, as they are made, and see it on the disk.

    Args:
        path: of the file.
        shards: what the values belong to, in their order.
        parts: the shards' values end to end, cut anywhere, on any device.
        dtype: of the parts: torch.float32 or torch.bfloat16.
    """
    with path.open("wb") as file:
        file.write(header(shards, dtype))
        for part in parts:
            file.write(part.cpu().view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def reserve(path: Path, shards: Sequence[Shard], dtype: torch.dtype) -> Tensor:
    """Make a file of its full size and map it.

    Returns:
        The data, not yet filled: the shards end to end. What is written to it is written to the file.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    head = header(shards, dtype)
    size = len(head) + sum(shard.data.numel() for shard in shards) * dtype.itemsize
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        file.write(head)
    return torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)[len(head) :].view(dtype)


class ShardFile:
    """A file of another launch, of this or another number of ranks, open for reading.

    Args:
        path: of the file.
        argument: the option that led to it, for errors.

    Attributes:
        shapes: of the full parameters, as far as the file says.

    Raises:
        ConfigError: it is not a whole file of this kind.
    """

    def __init__(self, path: Path, argument: str) -> None:
        stack = ExitStack()
        weakref.finalize(self, stack.close)
        self._tensors = dict(open_tensors(path, argument, stack))
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        self._offsets: dict[str, int] = json.loads(metadata.get(_OFFSETS, "{}"))
        self.shapes: dict[str, list[int]] = json.loads(metadata.get(_SHAPES, "{}"))

    def overlap(self, shard: Shard) -> tuple[int, Tensor] | None:
        """Read the part of ``shard`` that lies in this file.

        Returns:
            Where in ``shard.data`` the part begins, and its values; None where there is none.
        """
        if shard.name not in self._offsets or shard.name not in self._tensors:
            return None
        stored, begin = self._tensors[shard.name], self._offsets[shard.name]
        first = max(begin, shard.offset)
        last = min(begin + stored.numel, shard.offset + shard.data.numel())
        return (first - shard.offset, stored.read(first - begin, last - begin)) if first < last else None
