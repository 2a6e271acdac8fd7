"""Which parameters are spread over the processes between two forward passes."""

from __future__ import annotations

from torch import nn
from torch.distributed.tensor import DTensor


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 keeps the parameter."""
    return hasattr(parameter, "ds_id")


def is_sharded(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 or FSDP2 keeps the parameter: every forward pass is then a collective call."""
    return isinstance(parameter, DTensor) or is_partitioned(parameter)
