"""Host memory, page-locked where a GPU reads it."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from sfa_hf.shards.store import FlatStore


class HostStore(FlatStore):
    """Host memory, page-locked where a GPU reads it."""

    name = "cpu"

    def allocate(self) -> Tensor:
        buffer = torch.empty(self.place.numel, dtype=self.place.dtype)
        if self.place.device.type == "cuda" and self.place.numel:
            _page_lock(buffer)
        return buffer


def _page_lock(buffer: Tensor) -> None:
    """Page-lock memory in place; torch's own pinned allocator would round it up to a power of two."""
    cuda = torch.cuda.cudart()
    address = buffer.data_ptr()
    torch.cuda.check_error(cuda.cudaHostRegister(address, buffer.nbytes, 0))
    weakref.finalize(buffer, cuda.cudaHostUnregister, address)
