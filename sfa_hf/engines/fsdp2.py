"""FSDP2 (``fully_shard``): every parameter a DTensor, split by rows over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DeviceMesh, DTensor, Replicate
from torch.distributed.tensor import Shard as Rows

from sfa_hf.engines.backward_end import after_last_backward, refuse_reentrant_checkpointing
from sfa_hf.engines.base import Engine, Handle, Shard
from sfa_hf.engines.loss_scale import unscaled
from sfa_hf.engines.optimizers import steps_taken, unwrap
from sfa_hf.engines.refusals import refusal, refuse_hidden_steps, refuse_other_weights

_PLACEMENTS = ((Rows(0),), (Replicate(), Rows(0)))


class FSDP2Engine(Engine):
    """Shards are the rows that this rank steps (in host memory under CPU offload).

    Low-precision and gathered copies are made from them by every all-gather, so publishing means to drop what
    is gathered: after an evaluation the root's parameters are. Hybrid sharding (a 2-D mesh: replicas of
    shards) is supported; its replicas stay equal as under DDP.
    """

    name = "fsdp2"

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        refuse_other_weights(optimizer)
        self._model = model
        self._optimizer = unwrap(optimizer)
        self._scaler = getattr(optimizer, "scaler", None)
        self.publish()
        self._parameters = {
            name: _sharded(name, p) for name, p in model.named_parameters() if p.requires_grad
        }
        self._mesh = _one_mesh(self._parameters.values())

    @property
    def replica(self) -> int:
        return self._mesh.get_local_rank(0) if self._mesh.ndim > 1 else 0

    @classmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        del optimizer
        return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
            isinstance(parameter, DTensor) for parameter in model.parameters()
        )

    def shards(self) -> Sequence[Shard]:
        return [Shard(name, _local(p.data), self._offset(p), p.shape) for name, p in self._parameters.items()]

    def optimizer_state(self, key: str, shard: Shard) -> Tensor | None:
        state = self._optimizer.state.get(self._parameters[shard.name], {}).get(key)
        return _local(state) if isinstance(state, DTensor) else None

    def optimizer_steps(self, shard: Shard) -> int | None:
        return steps_taken(self._optimizer, self._parameters[shard.name])

    def before_step(self, fn: Callable[[Engine], None]) -> Handle:
        refuse_reentrant_checkpointing(self._model)
        refuse_hidden_steps(self._optimizer)

        def run() -> None:
            gradients = [_local(p.grad) for p in self._parameters.values() if p.grad is not None]
            with torch.no_grad(), unscaled(gradients, self._scaler):
                fn(self)

        return after_last_backward(self._parameters.values(), run)

    def gradient(self, shard: Shard) -> Tensor | None:
        gradient = self._parameters[shard.name].grad
        return None if gradient is None else _local(gradient)

    def publish(self) -> None:
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def sum_over_shards(self, values: Tensor) -> Tensor:
        total = values.to(self._mesh.device_type)
        dist.all_reduce(total, group=self._mesh.get_group(self._mesh.ndim - 1))
        return total.to(values.device)

    def _offset(self, parameter: DTensor) -> int:
        """Rows are dealt like ``torch.chunk``: equal chunks, the last ones short or empty."""
        rows, ranks = parameter.shape[0], self._mesh.size(self._mesh.ndim - 1)
        chunk = -(-rows // ranks)
        first = min(chunk * self._mesh.get_local_rank(self._mesh.ndim - 1), rows)
        return first * parameter.shape[1:].numel()


def _sharded(name: str, parameter: nn.Parameter) -> DTensor:
    if not isinstance(parameter, DTensor):
        raise refusal(f"an FSDP2 model whose trainable parameter {name} is not sharded")
    if parameter.placements not in _PLACEMENTS:
        raise refusal(
            f"a model whose parameter {name} is placed as {parameter.placements} (tensor parallel?)"
        )
    return parameter


def _one_mesh(parameters: Any) -> DeviceMesh:
    meshes = {parameter.device_mesh for parameter in parameters}
    if len(meshes) != 1:
        raise refusal(f"an FSDP2 model on {len(meshes)} device meshes")
    return meshes.pop()


@torch.no_grad()
def _local(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local().view(-1)
