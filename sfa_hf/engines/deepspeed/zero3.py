"""DeepSpeed ZeRO-3: every rank keeps a slice of each parameter, and a step's end gathers the small ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from torch import nn

from sfa_hf.engines.deepspeed.masters import Fragment
from sfa_hf.engines.deepspeed.partitioned import PartitionedEngine


class Zero3Engine(PartitionedEngine):
    """Shards are slices of ``fp32_partitioned_groups_flat`` (in host memory under CPU offload).

    Publishing releases every gathered parameter, rounds the masters into the low-precision partitions
    (``ds_tensor``, in host memory under parameter offload) and gathers the persistent parameters again: what
    the optimizer's step does before and after its update. The order matters: a parameter gathered before the
    merge would be used as it is by the next forward pass.
    """

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del model
        return type(optimizer) is DeepSpeedZeroOptimizer_Stage3

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        super().__init__(
            "zero3",
            model,
            optimizer,
            optimizer.fp32_partitioned_groups_flat,
            _partition_fragments(optimizer),
            norm_method="_get_norm_groups",
            offload=optimizer.offload_optimizer,
        )

    @torch.no_grad()
    def publish(self) -> None:
        optimizer = self._optimizer
        optimizer._partition_all_parameters()
        for group in range(len(self._masters)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def _partition_fragments(optimizer: Any) -> dict[int, Fragment]:
    """Find this rank's part of each parameter: equal parts, of which the last are padded or padding alone."""
    found = {}
    for parameters in optimizer.fp16_groups:
        for parameter in parameters:
            group, start, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
            offset = size * dist.get_rank(group=parameter.ds_process_group)
            length = min(size, parameter.ds_numel - offset)
            if length > 0:
                found[id(parameter)] = Fragment(group, start, length, offset)
    return found
