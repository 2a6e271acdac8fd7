"""Where an anchor's flat buffer is kept: host memory, a mapped file, or the device."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from sfa_hf.engines.base import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.shards import file as shard_file
from sfa_hf.shards.buffer import by_device

STORES = ("cpu", "device", "disk")
"""The names of the places, as options have them."""


class Store(ABC):
    """Gives one flat buffer and, for the mapped file, sees to what lies behind it."""

    @abstractmethod
    def allocate(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Return the buffer, not yet filled."""

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
    """A mapped safetensors file of this rank; the page cache holds what is in use.

    Args:
        file: the file, in a folder that this class makes and, once it is empty, removes.
        shards: what the buffer will hold, in its order.
    """

    def __init__(self, file: Path, shards: Sequence[Shard]) -> None:
        self.file = file
        self._shards = shards

    def allocate(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Reserve the disk space and map it.

        Raises:
            ConfigError: there is no room, or the folder cannot be written.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            return shard_file.reserve(self.file, self._shards, dtype)
        except OSError as error:
            self.release()
            right = f"{numel * dtype.itemsize} bytes of room in output_dir, or anchor_device 'cpu'"
            raise ConfigError("anchor_device", f"'disk': {self.file}: {error.strerror}", right) from error

    def release(self) -> None:
        """Delete the file, and the folder with the last of them; pages still mapped live on."""
        self.file.unlink(missing_ok=True)
        with suppress(OSError):  # other files are still there, or it has gone
            self.file.parent.rmdir()


def choose_store(where: str, shards: Sequence[Shard], file: Path) -> Store:
    """Choose what keeps a buffer in the layout of ``shards``.

    Args:
        where: "cpu", "disk" or "device".
        shards: what the buffer will hold.
        file: of this rank, for "disk".

    Raises:
        ConfigError: "device", and the weights are on several.
    """
    devices = {shard.data.device for shard in shards}
    device = next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
    if where == "disk":
        return DiskStore(file, by_device(shards))
    if where == "device" and len(devices) > 1:
        raise ConfigError("anchor_device", "'device', but some weights are in host memory", "'cpu' or 'disk'")
    return DeviceStore(device) if where == "device" else HostStore(device)


def _page_lock(buffer: Tensor) -> None:
    """Page-lock memory in place; torch's own pinned allocator would round it up to a power of two."""
    cuda = torch.cuda.cudart()
    address = buffer.data_ptr()
    torch.cuda.check_error(cuda.cudaHostRegister(address, buffer.nbytes, 0))
    weakref.finalize(buffer, cuda.cudaHostUnregister, address)
