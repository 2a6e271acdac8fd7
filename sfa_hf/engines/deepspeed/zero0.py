"""DeepSpeed without partitioning (ZeRO-0): every rank holds and steps everything, in replicas.

What steps the weights depends on their precision and on the optimizer's kernel, hence the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from torch import Tensor, nn

from sfa_hf.engines.deepspeed.find import find_deepspeed_engine, zero_stage
from sfa_hf.engines.deepspeed.masters import Fragment, MasterEngine, intercept


class ReplicatedEngine(MasterEngine):
    """Replicas stay equal because each rank computes the same: no sum, no collective."""

    @property
    def replica(self) -> int:
        return dist.get_rank()

    def sum_over_shards(self, values: Tensor) -> Tensor:
        return values

    def _gradient_slice(self, fragment: Fragment) -> Tensor | None:
        gradient = self._masters[fragment.group].grad
        return None if gradient is None else fragment.of(gradient)


class Fp32Zero0Engine(ReplicatedEngine):
    """fp32: the optimizer steps the model's own parameters, so nothing is left to publish."""

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        return zero_stage(model) == 0 and isinstance(optimizer, torch.optim.Optimizer)

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._engine = find_deepspeed_engine(model)
        stepped = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        masters = [parameter for parameter in stepped if parameter.requires_grad and parameter.numel() > 0]
        super().__init__("zero0", model, masters, optimizer, _one_each(masters))

    def publish(self) -> None:
        return

    def _intercept_step(self) -> None:
        # The engine clips before it calls the optimizer's step: the step itself would be too late.
        intercept(self._engine, "_take_model_step", self._edit_then_step)

    def _edit_then_step(self, step: Any, *args: Any, **kwargs: Any) -> Any:
        self._run_before()
        return step(*args, **kwargs)


class Zero0Engine(ReplicatedEngine):
    """bf16 and fp16 under DeepSpeed's ``FP16_Optimizer`` (fused) or ``FP16_UnfusedOptimizer``.

    Both step fp32 masters, one flat tensor a parameter group or one tensor a parameter, and copy them into
    the model. They take the norm, return early if it overflowed, and only then unscale and clip:
    ``before_step`` functions run between the two, and the norm is taken again over what they left.
    """

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del model
        return type(optimizer) in (FP16_Optimizer, FP16_UnfusedOptimizer)

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        self._optimizer = optimizer
        fused = hasattr(optimizer, "fp32_groups_flat")
        self._copies, masters, fragments = _fused(optimizer) if fused else _unfused(optimizer)
        super().__init__("zero0", model, masters, optimizer.optimizer, fragments)

    @torch.no_grad()
    def publish(self) -> None:
        for copy, master in zip(self._copies, self._masters, strict=True):
            copy.copy_(master)

    def _intercept_step(self) -> None:
        if self._copies[0].dtype == torch.float16:
            # DeepSpeed 0.19 scales the loss under its ZeRO optimizers only; these divide by the scale alike.
            raise NotImplementedError(
                "sfa_hf cannot edit gradients under DeepSpeed stage 0 in fp16, which divides them by a loss"
                " scale that it never applied; supported: stages 1 to 3 in fp16, every stage in bf16 and fp32"
            )
        intercept(self._optimizer, "unscale_and_clip_grads", self._edit_then_clip)

    def _edit_then_clip(self, clip: Any, *args: Any, **kwargs: Any) -> Any:
        self._run_before()
        gradients = [master.grad for master in self._masters if master.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        self._optimizer._global_grad_norm = norm
        *groups, _ = args  # the norm of before the edit is the last argument
        return clip(*groups, norm, **kwargs)


Layout = tuple[Sequence[Tensor], Sequence[Tensor], Mapping[int, Fragment]]


def _fused(optimizer: Any) -> Layout:
    """Return model copies, masters and fragments of flat groups."""
    fragments = {}
    for index, parameters in enumerate(optimizer.fp16_groups):
        start = 0
        for parameter in parameters:
            fragments[id(parameter)] = Fragment(index, start, parameter.numel(), 0)
            start += parameter.numel()
    return optimizer.fp16_groups_flat, optimizer.fp32_groups_flat, fragments


def _unfused(optimizer: Any) -> Layout:
    """Return model copies, masters and fragments of one master a parameter."""
    copies = list(chain.from_iterable(optimizer.fp16_groups))
    return copies, list(chain.from_iterable(optimizer.fp32_groups)), _one_each(copies)


def _one_each(parameters: Sequence[Tensor]) -> dict[int, Fragment]:
    return {id(p): Fragment(index, 0, p.numel(), 0) for index, p in enumerate(parameters)}
