"""Reduced gradients of DeepSpeed's partitioning optimizers (ZeRO-1, 2, 3), where they wait for clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfa_hf.engines.deepspeed.masters import Fragment, MasterEngine, intercept, scale_in_place, sum_over


class PartitionedEngine(MasterEngine):
    """What stages 1, 2 and 3 have in common: each rank steps its own slice and owns that slice's gradient.

    Without offload the reduced gradients wait in ``averaged_gradients``, one tensor a fragment, in the
    communication dtype and times the loss scale; with it they are already in the ``grad`` of the CPU master.
    DeepSpeed checks for overflow, takes the global norm, clips and steps, in this order: ``before_step``
    functions run ahead of the norm, so never in a step that fp16 overflow skips.

    Args:
        name: as written to results.json.
        model: the unwrapped model.
        optimizer: DeepSpeed's optimizer.
        masters: its fp32 tensors.
        fragments: what this rank owns of each parameter, by ``id(parameter)``.
        norm_method: name of the optimizer's method that takes the norm of the reduced gradients.
        offload: whether masters, moments and gradients live on the CPU.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizer: Any,
        masters: Sequence[Tensor],
        fragments: Mapping[int, Fragment],
        *,
        norm_method: str,
        offload: bool,
    ) -> None:
        super().__init__(name, model, masters, optimizer.optimizer, fragments)
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
        return sum_over(self._optimizer.dp_process_group, values)

    def _intercept_step(self) -> None:
        intercept(self._optimizer, self._norm_method, self._edit_then_norm)

    def _edit_then_norm(self, norm: Any, *args: Any, **kwargs: Any) -> Any:
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
            piece = self._open[fragment.group].get(fragment.start)
            return None if piece is None else piece.narrow(0, 0, fragment.length)
        # The buffer keeps the last step's values for a parameter without a gradient; its norm is missing.
        has_gradient = self._parameter_ids[fragment] in self._optimizer.norm_for_param_grads
        return fragment.of(self._open[fragment.group][0]) if has_gradient else None

    def _opened(self, group: int) -> dict[int, Tensor]:
        """Return the group's gradients in fp32 without loss scale, by where each starts in the master."""
        pieces = [self._offloaded_gradient(group)] if self._offload else self._averaged_in_fp32(group)
        scale_in_place(pieces, 1.0 / self._optimizer.loss_scale)
        opened, start = {}, 0
        for piece in pieces:
            opened[start] = piece.view(-1)
            start += piece.numel()
        return opened

    def _averaged_in_fp32(self, group: int) -> list[Tensor]:
        """Swap the optimizer's low-precision gradients for fp32 ones, so that no edit is rounded away.

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

    def _offloaded_gradient(self, group: int) -> Tensor:
        gradient = self._masters[group].grad
        assert gradient is not None, "DeepSpeed allocates it when it creates the offloaded master"
        return gradient

    def _close(self) -> None:
        """Give the edited gradients their loss scale back; offload's cached norms follow the edit."""
        for pieces in self._open.values():
            scale_in_place(pieces.values(), self._optimizer.loss_scale)
        if not self._offload:
            return
        norms = self._optimizer.norm_for_param_grads
        for fragment, parameter_id in self._parameter_ids.items():
            if fragment.group in self._open and parameter_id in norms:
                norms[parameter_id] = fragment.of(self._offloaded_gradient(fragment.group)).double().norm()
