"""Where an anchor's flat buffer is kept: host memory, a mapped file, or the device."""

from __future__ import annotations

import json
import os
import weakref
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from sfa_hf.errors import ConfigError
from sfa_hf.files import sync_file, sync_folder

_FOLDER = "sfa_anchor"
_SAFETENSORS_DTYPE = {torch.float32: "F32", torch.bfloat16: "BF16"}
_ALIGNMENT = 64


class Store(ABC):
    """Gives one flat buffer and, for the mapped file, sees to what lies behind it."""

    @abstractmethod
    def allocate(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Return the buffer, not yet filled."""

    def commit(self) -> None:
        """The buffer is filled."""
        return

    def release(self) -> None:
        """The buffer is no longer used."""
        return


class HostStore(Store):
    """Host memory, page-locked where a GPU reads it."""

    def __init__(self, device: torch.device) -> None:
        self._pin = device.type == "cuda"

    def allocate(self, numel: int, dtype: torch.dtype) -> Tensor:
        buffer = torch.empty(numel, dtype=dtype)
        if self._pin and numel:
            _page_lock(buffer)
        return buffer


class DeviceStore(Store):
    """Memory of the device that the weights are on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def allocate(self, numel: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(numel, dtype=dtype, device=self._device)


class DiskStore(Store):
    """A memory-mapped safetensors file with one tensor, ``anchor``; the page cache holds what is in use.

    Args:
        output_dir: the training's output folder.
        rank: this process.
        ranks: how many processes there are.
    """

    def __init__(self, output_dir: str, rank: int, ranks: int) -> None:
        self._file = Path(output_dir) / _FOLDER / f"rank-{rank:05d}-of-{ranks:05d}.safetensors"
        self._temporary = self._file.with_suffix(".tmp")

    def allocate(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Reserve the disk space and map it.

        Raises:
            ConfigError: there is no room, or the folder cannot be written.
        """
        header = _header(numel, dtype)
        size = len(header) + numel * dtype.itemsize
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                file.write(header)
        except OSError as error:
            self._temporary.unlink(missing_ok=True)
            right = f"{size} bytes of room in output_dir, or anchor_device 'cpu'"
            raise ConfigError("anchor_device", f"'disk': {self._file}: {error.strerror}", right) from error
        mapped = torch.from_file(str(self._temporary), shared=True, size=size, dtype=torch.uint8)
        return mapped[len(header) :].view(dtype)

    def commit(self) -> None:
        """Give the file its name, now that it is whole; the mapping goes with it."""
        sync_file(self._temporary)
        self._temporary.replace(self._file)
        sync_folder(self._file.parent)

    def release(self) -> None:
        """Delete the file, and the folder with the last of them."""
        self._file.unlink(missing_ok=True)
        try:
            self._file.parent.rmdir()
        except OSError:  # other ranks' files are still there, or it has gone
            return


def _header(numel: int, dtype: torch.dtype) -> bytes:
    """Build what precedes the data of a safetensors file: the length of a JSON text, and the text."""
    tensor = {
        "dtype": _SAFETENSORS_DTYPE[dtype],
        "shape": [numel],
        "data_offsets": [0, numel * dtype.itemsize],
    }
    text = json.dumps({"anchor": tensor}).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _page_lock(buffer: Tensor) -> None:
    """Page-lock memory in place; torch's own pinned allocator would round it up to a power of two."""
    cuda = torch.cuda.cudart()
    address = buffer.data_ptr()
    torch.cuda.check_error(cuda.cudaHostRegister(address, buffer.nbytes, 0))
    weakref.finalize(buffer, cuda.cudaHostUnregister, address)
