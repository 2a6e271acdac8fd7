"""Which parameters are spread over the processes between two forward passes."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 keeps the parameter."""
    return hasattr(parameter, "ds_id")


def is_sharded(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 or FSDP2 keeps the parameter: every forward pass is then a collective call."""
    return isinstance(parameter, DTensor) or is_partitioned(parameter)


def own_part(tensor: Tensor) -> Tensor:
    """All of a tensor; under ZeRO-3 this process's part, without what fills up the last one."""
    if not hasattr(tensor, "ds_tensor"):
        return tensor
    part: Tensor = tensor.ds_tensor
    rank = dist.get_rank() if dist.is_initialized() else 0
    return part.flatten()[: max(0, min(part.numel(), tensor.ds_numel - rank * part.numel()))]  # type: ignore[attr-defined]
