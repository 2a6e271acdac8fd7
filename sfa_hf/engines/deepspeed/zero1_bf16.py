"""DeepSpeed ZeRO-1 in bf16 with fp32 gradient accumulation, which is DeepSpeed's ``BF16_Optimizer``."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from torch import Tensor, nn

from sfa_hf.engines.deepspeed.masters import Fragment, MasterEngine, intercept, sum_over
from sfa_hf.engines.deepspeed.zero12 import flat_fragments


class Bf16Zero1Engine(MasterEngine):
    """Shards are slices of ``fp32_groups_flat_partition``; laid out and published as under ZeRO-1.

    Gradients are reduced into a full fp32 copy on each rank, of which a rank steps its own part but clips by
    the norm of all: after an edit the parts are gathered again, one all-gather a parameter group.
    There is no loss scale; ``before_step`` functions also run in a step that a non-finite norm then skips.
    """

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del model
        return type(optimizer) is BF16_Optimizer

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        self._optimizer = optimizer
        super().__init__(
            "zero1",
            model,
            optimizer.fp32_groups_flat_partition,
            optimizer.optimizer,
            flat_fragments(
                optimizer.bf16_groups, optimizer.bf16_groups_flat, optimizer.real_dp_process_group
            ),
        )

    def publish(self) -> None:
        self._optimizer.update_lp_params()

    def sum_over_shards(self, values: Tensor) -> Tensor:
        return sum_over(self._optimizer.dp_process_group, values)

    def _intercept_step(self) -> None:
        intercept(self._optimizer, "step", self._edit_then_step)

    def _edit_then_step(self, step: Any, *args: Any, **kwargs: Any) -> Any:
        if self._before:
            self._run_before()
            self._gather_gradients()
        return step(*args, **kwargs)

    def _gather_gradients(self) -> None:
        optimizer = self._optimizer
        for whole, part, process_group in zip(
            optimizer.fp32_groups_gradients_flat,
            optimizer.fp32_groups_gradient_flat_partition,
            optimizer.real_dp_process_group,
            strict=True,
        ):
            if dist.get_world_size(group=process_group) > 1:
                dist.all_gather_into_tensor(whole, part, group=process_group)

    def _gradient_slice(self, fragment: Fragment) -> Tensor:
        return fragment.of(self._optimizer.fp32_groups_gradient_flat_partition[fragment.group])
