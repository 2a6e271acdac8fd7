"""DeepSpeed ZeRO-1 and ZeRO-2: every rank computes with all weights and steps its part of each flat group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.utils import all_gather_dp_groups
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor, nn

from sfa_hf.engines.deepspeed.find import zero_stage
from sfa_hf.engines.deepspeed.masters import Fragment
from sfa_hf.engines.deepspeed.partitioned import PartitionedEngine


class Zero12Engine(PartitionedEngine):
    """Shards are slices of ``single_partition_of_fp32_groups`` (in host memory under CPU offload).

    Each parameter group is one flat low-precision tensor, which the model's parameters view, cut into equal
    parts, one per rank; the master is the fp32 copy of this rank's part. Publishing rounds the masters into
    that part and all-gathers each group once, exactly as the optimizer's step ends.
    """

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del model
        return type(optimizer) is DeepSpeedZeroOptimizer

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        super().__init__(
            f"zero{zero_stage(model)}",
            model,
            optimizer,
            optimizer.single_partition_of_fp32_groups,
            flat_fragments(
                optimizer.bit16_groups, optimizer.bit16_groups_flat, optimizer.real_dp_process_group
            ),
            norm_method="scaled_global_norm",
            offload=optimizer.cpu_offload,
        )

    @torch.no_grad()
    def publish(self) -> None:
        for group in range(len(self._masters)):
            self._round_into_own_part(group)
        optimizer = self._optimizer
        all_gather_dp_groups(
            groups_flat=optimizer.bit16_groups_flat,
            partitioned_param_groups=optimizer.parallel_partitioned_bit16_groups,
            dp_process_group=optimizer.real_dp_process_group,
            start_alignment_factor=optimizer.nccl_start_alignment_factor,
            allgather_bucket_size=optimizer.allgather_bucket_size,
        )

    def _round_into_own_part(self, group: int) -> None:
        optimizer = self._optimizer
        rank = dist.get_rank(group=optimizer.real_dp_process_group[group])
        rounded: Tensor = self._masters[group].detach()
        if self._offload:
            # Rounded on the CPU: half the bytes cross the bus, and no fp32 copy stands on the device.
            rounded = optimizer.param_buffer_of_bit16_for_cpu_offload_groups[group].copy_(rounded)
        optimizer.parallel_partitioned_bit16_groups[group][rank].copy_(rounded)


def flat_fragments(
    groups: Sequence[Sequence[nn.Parameter]], flats: Sequence[Tensor], process_groups: Sequence[Any]
) -> dict[int, Fragment]:
    """Find what this rank's equal part of each flat group holds of each parameter, by ``id(parameter)``.

    Read from where the parameters lie in the flat tensor, not from their order in the group: alignment
    padding and round-robin ordering then need no case of their own.
    """
    found = {}
    for index, (parameters, flat, process_group) in enumerate(
        zip(groups, flats, process_groups, strict=True)
    ):
        size = flat.numel() // dist.get_world_size(group=process_group)
        lower = size * dist.get_rank(group=process_group)
        for parameter, begin in _positions(parameters, flat):
            first, last = max(begin, lower), min(begin + parameter.numel(), lower + size)
            if first < last:
                found[id(parameter)] = Fragment(index, first - lower, last - first, first - begin)
    return found


def _positions(parameters: Sequence[nn.Parameter], flat: Tensor) -> Iterator[tuple[nn.Parameter, int]]:
    for parameter in parameters:
        if parameter.untyped_storage().data_ptr() != flat.untyped_storage().data_ptr():
            raise RuntimeError("a parameter lies outside DeepSpeed's flat group: its storage was replaced")
        yield parameter, int(parameter.storage_offset() - flat.storage_offset())
