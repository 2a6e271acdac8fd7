"""Reduced gradients of DeepSpeed's partitioning optimizers (ZeRO-1, 2 and 3), where they are before clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from sfa_hf.engines.masters import Fragment, MasterEngine, intercept, scaled


class PartitionedEngine(MasterEngine):
    """What stages 1, 2 and 3 have in common: each rank steps its own slice, and owns that slice's gradient.

    Without offload the reduced gradients wait in ``averaged_gradients``, one tensor per fragment, in the
    communication dtype and times the loss scale; with it they are already in the ``grad`` of the CPU master.
    DeepSpeed checks for overflow, takes the global norm, clips and steps, in this order: ``before_step``
    functions run ahead of the norm, so never in a step that fp16 overflow skips.

    Args:
        norm_method: name of the optimizer's method that takes the norm of the reduced gradients.
        offload: whether the optimizer's state lives on the CPU.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizer: Any,  # noqa: ANN401 - DeepSpeed's optimizers carry no types
        masters: Sequence[Tensor],
        fragments: Mapping[int, Fragment],
        *,
        norm_method: str,
        offload: bool,
    ) -> None:
        super().__init__(name, model, masters, optimizer.optimizer.state, fragments)
        self._optimizer = optimizer
        self._norm_method = norm_method
        self._offload = offload
        self._parameter_ids = {
            fragments[id(parameter)]: optimizer.get_param_id(parameter)
            for parameter in model.parameters()
            if id(parameter) in fragments
        }
        self._open: dict[int, dict[int, Tensor]] = {}

    def sum_over_shards(self, values: Tensor) -> Tensor:
        total = values.to(get_accelerator().current_device_name())
        total = total.clone() if total is values else total
        dist.all_reduce(total, group=self._optimizer.dp_process_group)
        return total.to(values.device)

    def _intercept_step(self) -> None:
        intercept(self._optimizer, self._norm_method, self._edit_then_norm)

    def _edit_then_norm(self, norm: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            self._run_before()
            self._close()
        finally:
            self._open = {}
        return norm(*args, **kwargs)

    def _gradient_slice(self, fragment: Fragment) -> Tensor | None:
        if fragment.group not in self._open:
            self._open[fragment.group] = self._opened(fragment.group)
        if not self._offload:
            return self._open[fragment.group].get(fragment.start)
        if self._parameter_ids[fragment] not in self._optimizer.norm_for_param_grads:
            return None
        return self._slice(self._open[fragment.group][0], fragment)

    def _opened(self, group: int) -> dict[int, Tensor]:
        """The group's gradients in fp32 without loss scale, by where each starts in the master tensor."""
        pieces = [self._masters[group].grad] if self._offload else self._averaged_in_fp32(group)
        scaled(pieces, 1.0 / self._optimizer.loss_scale)
        starts = [0, *torch.tensor([piece.numel() for piece in pieces]).cumsum(0).tolist()]
        return {start: piece.view(-1) for start, piece in zip(starts, pieces, strict=False)}

    def _averaged_in_fp32(self, group: int) -> list[Tensor]:
        """Swap the optimizer's low-precision gradients for fp32 ones, so that an edit is not rounded away.

        The optimizer converts them to fp32 for its step in any case.
        """
        averaged = self._optimizer.averaged_gradients[group]
        for index, piece in enumerate(averaged):
            exact = piece.to(torch.float32).contiguous()
            if exact is not piece:
                # DeepSpeed pairs gradients with parameters by skipping the entries so marked.
                exact._zero_padding = getattr(piece, "_zero_padding", False)
                averaged[index] = exact
        return list(averaged)

    def _close(self) -> None:
        """Give the edited gradients their loss scale back, and have offload's cached norms follow the edit."""
        for pieces in self._open.values():
            scaled(list(pieces.values()), self._optimizer.loss_scale)
        if not self._offload:
            return
        norms = self._optimizer.norm_for_param_grads
        for fragment, parameter_id in self._parameter_ids.items():
            if fragment.group in self._open and parameter_id in norms:
                norms[parameter_id] = (
                    self._slice(self._masters[fragment.group].grad, fragment).double().norm()
                )
