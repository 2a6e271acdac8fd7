"""Gradients without the fp16 loss scale, for as long as someone looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.amp import GradScaler


@contextmanager
def unscaled(gradients: list[Tensor], scaler: GradScaler | None) -> Iterator[None]:
    """Take the loss scale, a power of two by default, out of the gradients and put it back.

    Exact both ways for a power of two, except where a gradient leaves the dtype's range.
    """
    if scaler is None or not scaler.is_enabled() or not gradients:
        yield
        return
    scale = scaler.get_scale()
    torch._foreach_div_(gradients, scale)
    yield
    torch._foreach_mul_(gradients, scale)
