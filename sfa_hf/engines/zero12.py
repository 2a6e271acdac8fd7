"""DeepSpeed ZeRO-1 and ZeRO-2: every rank computes with all weights and steps its part of each flat group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.utils import all_gather_dp_groups
from torch import Tensor, nn

from sfa_hf.engines.masters import Fragment
from sfa_hf.engines.partitioned import PartitionedEngine


class Zero12Engine(PartitionedEngine):
    """Shards are slices of ``single_partition_of_fp32_groups`` (in host memory under CPU offload).

    Each parameter group is one flat low-precision tensor, which the model's parameters view, cut into equal
    parts, one per rank; the master tensor is the fp32 copy of this rank's part. Publishing rounds the masters
    into that part and all-gathers each group once, exactly as the optimizer's step ends.
    """

    def __init__(self, name: str, model: nn.Module, optimizer: Any) -> None:  # noqa: ANN401
        super().__init__(
            name,
            model,
            optimizer,
            optimizer.single_partition_of_fp32_groups,
            dict(
                flat_fragments(
                    optimizer.bit16_groups,
                    optimizer.bit16_groups_flat,
                    optimizer.real_dp_process_group,
                )
            ),
            norm_method="scaled_global_norm",
            offload=optimizer.cpu_offload,
        )

    @torch.no_grad()
    def publish(self) -> None:
        for group in range(len(self._masters)):
            self._round_into_own_partition(group)
        optimizer = self._optimizer
        all_gather_dp_groups(
            groups_flat=optimizer.bit16_groups_flat,
            partitioned_param_groups=optimizer.parallel_partitioned_bit16_groups,
            dp_process_group=optimizer.real_dp_process_group,
            start_alignment_factor=optimizer.nccl_start_alignment_factor,
            allgather_bucket_size=optimizer.allgather_bucket_size,
        )

    def _round_into_own_partition(self, group: int) -> None:
        optimizer = self._optimizer
        rank = dist.get_rank(group=optimizer.real_dp_process_group[group])
        rounded: Tensor = self._masters[group].detach()
        if self._offload:
            # Rounded on the CPU first: half the bytes cross the bus, and no fp32 copy stands on the device.
            rounded = optimizer.param_buffer_of_bit16_for_cpu_offload_groups[group].copy_(rounded)
        optimizer.parallel_partitioned_bit16_groups[group][rank].copy_(rounded)


def flat_fragments(
    groups: list[list[nn.Parameter]], flats: list[Tensor], process_groups: list[Any]
) -> Iterator[tuple[int, Fragment]]:
    """What this rank's equal part of each flat group holds of each parameter.

    Read from where the parameters lie in the flat tensor, not from the order of the group: alignment padding
    and round-robin ordering then need no case of their own.

    Yields:
        ``(id(parameter), fragment)`` for each parameter that this rank owns something of.
    """
    for index, (parameters, flat, process_group) in enumerate(
        zip(groups, flats, process_groups, strict=True)
    ):
        size = flat.numel() // dist.get_world_size(group=process_group)
        lower = size * dist.get_rank(group=process_group)
        for parameter in parameters:
            begin = _position(parameter, flat)
            first, last = max(begin, lower), min(begin + parameter.numel(), lower + size)
            if first < last:
                yield id(parameter), Fragment(index, first - lower, last - first, first - begin)


def _position(parameter: nn.Parameter, flat: Tensor) -> int:
    if parameter.untyped_storage().data_ptr() != flat.untyped_storage().data_ptr():
        raise RuntimeError(
            "a parameter no longer views DeepSpeed's flat group: its storage was replaced or offloaded"
        )
    return parameter.storage_offset() - flat.storage_offset()
