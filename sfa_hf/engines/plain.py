"""Whole replicas: one process, or one per rank under DDP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sfa_hf.engines.backward_end import after_last_backward, refuse_reentrant_checkpointing
from sfa_hf.engines.base import Engine, Handle, Shard
from sfa_hf.engines.loss_scale import unscaled
from sfa_hf.engines.optimizers import steps_taken, unwrap
from sfa_hf.engines.refusals import (
    refusal,
    refuse_hidden_steps,
    refuse_other_weights,
    refuse_split_placement,
)


class PlainEngine(Engine):
    """Every parameter whole on this rank; the weights that compute are the weights that are stepped."""

    name = "plain"
    LAST = True

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        refuse_split_placement(model)
        refuse_other_weights(optimizer)
        self._model = model
        self._optimizer = unwrap(optimizer)
        self._scaler = getattr(optimizer, "scaler", None)
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for name, parameter in self._parameters.items():
            if not parameter.is_contiguous():
                raise refusal(f"a model with the non-contiguous parameter {name}")

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del model
        return isinstance(unwrap(optimizer), torch.optim.Optimizer) and _processes() == 1

    def shards(self) -> Sequence[Shard]:
        return [Shard(name, p.data.view(-1), 0, p.shape) for name, p in self._parameters.items()]

    def optimizer_state(self, key: str, shard: Shard) -> Tensor | None:
        parameter = self._parameters[shard.name]
        state = self._optimizer.state.get(parameter, {}).get(key)
        return state.view(-1) if isinstance(state, Tensor) and state.shape == parameter.shape else None

    def optimizer_steps(self, shard: Shard) -> int | None:
        return steps_taken(self._optimizer, self._parameters[shard.name])

    def before_step(self, fn: Callable[[Engine], None]) -> Handle:
        refuse_reentrant_checkpointing(self._model)
        refuse_hidden_steps(self._optimizer)

        def run() -> None:
            gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
            with torch.no_grad(), unscaled(gradients, self._scaler):
                fn(self)

        return after_last_backward(self._parameters.values(), run)

    def gradient(self, shard: Shard) -> Tensor | None:
        gradient = self._parameters[shard.name].grad
        return None if gradient is None else gradient.view(-1)

    def publish(self) -> None:
        """There is no other copy: replicas are equal because every rank computes the same."""

    def sum_over_shards(self, values: Tensor) -> Tensor:
        """Return ``values``: this rank owns every parameter."""
        return values


class DDPEngine(PlainEngine):
    """Replicas under DistributedDataParallel, which reduces their gradients during backward."""

    name = "ddp"

    @property
    def replica(self) -> int:
        return dist.get_rank()

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del model
        return isinstance(unwrap(optimizer), torch.optim.Optimizer) and _processes() > 1


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
