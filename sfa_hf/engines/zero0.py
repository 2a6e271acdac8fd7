"""DeepSpeed without partitioning (ZeRO-0): every rank holds and steps everything, in replicas.

Which object steps the weights depends on their precision and on the optimizer, hence three small classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfa_hf.engines.masters import Fragment, MasterEngine, intercept, scaled


class ReplicatedEngine(MasterEngine):
    """Replicas stay equal because each rank computes the same: no sum, no collective."""

    def sum_over_shards(self, values: Tensor) -> Tensor:
        return values

    def _gradient_slice(self, fragment: Fragment) -> Tensor | None:
        gradient = self._masters[fragment.group].grad
        return None if gradient is None else self._slice(gradient, fragment)


class Fp32Zero0Engine(ReplicatedEngine):
    """fp32 without a wrapper: the optimizer steps the model's own parameters, so there is nothing to publish."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, engine: Any) -> None:  # noqa: ANN401
        self._engine = engine
        masters = [
            p for group in optimizer.param_groups for p in group["params"] if p.requires_grad and p.numel()
        ]
        super().__init__("zero0", model, masters, optimizer.state, dict(_own_groups(masters)))

    def publish(self) -> None:
        return

    def _intercept_step(self) -> None:
        # The engine clips before it calls the optimizer's step: that would be too late.
        intercept(self._engine, "_take_model_step", self._edit_then_step)

    def _edit_then_step(self, step: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._run_before()
        return step(*args, **kwargs)


class Zero0Engine(ReplicatedEngine):
    """bf16 and fp16 under DeepSpeed's ``FP16_Optimizer`` (fused) or ``FP16_UnfusedOptimizer``.

    Both step fp32 masters, one flat tensor a parameter group or one tensor a parameter, and copy them into the
    model. They take the norm, return early if it overflowed, and only then unscale and clip: ``before_step``
    functions run between the two, and the norm is taken again over what they left.
    """

    def __init__(self, model: nn.Module, optimizer: Any) -> None:  # noqa: ANN401
        self._optimizer = optimizer
        self._copies, masters, fragments = (
            _fused(optimizer) if hasattr(optimizer, "fp32_groups_flat") else _unfused(optimizer)
        )
        super().__init__("zero0", model, masters, optimizer.optimizer.state, fragments)

    @torch.no_grad()
    def publish(self) -> None:
        for copy, master in zip(self._copies, self._masters, strict=True):
            copy.copy_(master)

    def _intercept_step(self) -> None:
        intercept(self._optimizer, "unscale_and_clip_grads", self._edit_then_clip)

    def _edit_then_clip(self, clip: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        scale = self._optimizer.loss_scale
        gradients = [master.grad for master in self._masters if master.grad is not None]
        scaled(gradients, 1.0 / scale)
        self._run_before()
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        self._optimizer._global_grad_norm = norm
        scaled(gradients, scale)
        *groups, _stale_norm = args
        return clip(*groups, norm * scale, **kwargs)


Layout = tuple[Sequence[Tensor], Sequence[Tensor], Mapping[int, Fragment]]


def _fused(optimizer: Any) -> Layout:  # noqa: ANN401
    """Model copies, masters and fragments of flat groups."""
    return optimizer.fp16_groups_flat, optimizer.fp32_groups_flat, dict(_flattened(optimizer.fp16_groups))


def _unfused(optimizer: Any) -> Layout:  # noqa: ANN401
    """Model copies, masters and fragments of one master a parameter."""
    parameters = list(itertools.chain.from_iterable(optimizer.fp16_groups))
    masters = list(itertools.chain.from_iterable(optimizer.fp32_groups))
    return parameters, masters, dict(_own_groups(parameters))


def _flattened(groups: Sequence[Sequence[nn.Parameter]]) -> Iterator[tuple[int, Fragment]]:
    for index, parameters in enumerate(groups):
        start = 0
        for parameter in parameters:
            yield id(parameter), Fragment(index, start, parameter.numel(), 0)
            start += parameter.numel()


def _own_groups(parameters: Sequence[Tensor]) -> Iterator[tuple[int, Fragment]]:
    for index, parameter in enumerate(parameters):
        yield id(parameter), Fragment(index, 0, parameter.numel(), 0)
