"""Which parameters are spread over the processes between two forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    """All of a tensor; under ZeRO-3 and FSDP2 this process's part, without what fills up the last one."""
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    if not hasattr(tensor, "ds_tensor"):
        return tensor
    part: Tensor = tensor.ds_tensor
    rank = dist.get_rank() if dist.is_initialized() else 0
    return part.flatten()[: max(0, min(part.numel(), tensor.ds_numel - rank * part.numel()))]  # type: ignore[attr-defined]


@contextmanager
def whole(parameter: nn.Parameter) -> Iterator[Tensor]:
    """All of a parameter, to read; a collective call where it is spread over the processes."""
    if is_partitioned(parameter):
        import deepspeed  # noqa: PLC0415 - an optional extra

        with deepspeed.zero.GatheredParameters([parameter]):
            yield parameter.data
    elif isinstance(parameter, DTensor):
        yield parameter.full_tensor()
    else:
        yield parameter.data
