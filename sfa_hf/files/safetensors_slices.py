"""Tensors in safetensors files, read a few entries at a time: nothing is mapped, nothing is unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sfa_hf.errors import ConfigError

FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
"""The stored types that can be merged."""
_BLOCK_BYTES = 2**24
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16}
_BITS |= {"BF16": 16, "F16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64}


@dataclass(frozen=True)
class Stored:
    """One tensor in an open file.

    Attributes:
        path: of the file.
        descriptor: the open file's.
        dtype: as safetensors calls it, e.g. "BF16".
        shape: of the tensor.
        start: byte of the file where its data start.
    """

    path: Path
    descriptor: int
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def numel(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.numel * item_bytes(self.dtype)

    def read(self, first: int, last: int) -> Tensor:
        """Entries [first, last) of the flattened tensor, whose dtype is one of :data:`FLOATS`."""
        size = item_bytes(self.dtype)
        return self.read_bytes(first * size, last * size).view(FLOATS[self.dtype])

    def read_bytes(self, first: int, last: int) -> Tensor:
        """Bytes [first, last) of the tensor's data, as uint8."""
        buffer = torch.empty(last - first, dtype=torch.uint8)
        view, done = buffer.numpy().data, 0
        while done < len(view):
            got = os.preadv(self.descriptor, [view[done:]], self.start + first + done)
            if not got:
                raise ConfigError(str(self.path), "became shorter while it was read", "a file at rest")
            done += got
        return buffer


def same_values(one: Stored, other: Stored | None) -> bool:
    """Whether two tensors are the same in every bit; read a block at a time."""
    if other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    for first in range(0, one.nbytes, _BLOCK_BYTES):
        last = min(first + _BLOCK_BYTES, one.nbytes)
        if not torch.equal(one.read_bytes(first, last), other.read_bytes(first, last)):
            return False
    return True


def item_bytes(dtype: str) -> int:
    """Bytes of one entry."""
    return _BITS[dtype] // 8


def open_tensors(path: Path, key: str, stack: ExitStack) -> Iterator[tuple[str, Stored]]:
    """Yield the names and tensors of a safetensors file, which stays open as long as ``stack``.

    Args:
        path: the file.
        key: the config key that names it, for errors.
        stack: closes it.

    Raises:
        ConfigError: it is not a whole safetensors file, or holds a type that is not made of whole bytes.
    """
    header, data = _header(path, key)
    descriptor = os.open(path, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    for name, entry in header.items():
        if entry["dtype"] not in _BITS:
            raise ConfigError(key, f"{path} holds {name} as {entry['dtype']}", "weights that are not packed")
        begin, _ = entry["data_offsets"]
        yield name, Stored(path, descriptor, entry["dtype"], tuple(entry["shape"]), data + begin)


def _header(path: Path, key: str) -> tuple[dict[str, dict], int]:
    try:
        with (
            safe_open(path, framework="pt"),
            path.open("rb") as file,
        ):  # safe_open checks all sizes and offsets
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (OSError, SafetensorError) as error:
        raise ConfigError(key, f"{path} cannot be read: {error}", "an unbroken safetensors file") from error
    header.pop("__metadata__", None)
    return header, 8 + length
