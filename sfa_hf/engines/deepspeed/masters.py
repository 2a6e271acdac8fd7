"""Engines whose optimizer steps flat fp32 master tensors that hold slices of many parameters."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from sfa_hf.engines.base import Engine, Handle, Shard
from sfa_hf.engines.optimizers import steps_taken


@dataclass(frozen=True)
class Fragment:
    """Where this rank keeps its slice of one parameter.

    Attributes:
        group: index of the master tensor.
        start: index of the slice's first element in that tensor, flattened.
        length: elements in the slice, padding excluded.
        offset: index of the slice's first element in the flattened full parameter.
    """

    group: int
    start: int
    length: int
    offset: int

    def of(self, flat: Tensor) -> Tensor:
        """Return the slice of a tensor laid out like the master, one-dimensional and outside autograd."""
        return flat.detach().view(-1).narrow(0, self.start, self.length)


class MasterEngine(Engine):
    """What every DeepSpeed stage shares: slices of master tensors, and a place before the step.

    Args:
        name: as written to results.json.
        model: the unwrapped model; its names and order are the shards'.
        masters: the tensors that the optimizer steps, as they stand in its ``param_groups``.
        stepping: the optimizer that steps them; its ``state`` is keyed by them.
        fragments: what this rank owns of each parameter, by ``id(parameter)``.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        masters: Sequence[Tensor],
        stepping: torch.optim.Optimizer,
        fragments: Mapping[int, Fragment],
    ) -> None:
        self.name = name
        self._masters = masters
        self._stepping = stepping
        owned = {n: p for n, p in model.named_parameters() if id(p) in fragments}
        self._fragments = {name: fragments[id(parameter)] for name, parameter in owned.items()}
        self._shards = tuple(
            Shard(name, fragment.of(masters[fragment.group]), fragment.offset, full_shape(owned[name]))
            for name, fragment in self._fragments.items()
        )
        self._before: list[Callable[[Engine], None]] = []
        self._intercepted = False
        self._in_step = False

    def shards(self) -> Sequence[Shard]:
        return self._shards

    def optimizer_state(self, key: str, shard: Shard) -> Tensor | None:
        fragment = self._fragments[shard.name]
        master = self._masters[fragment.group]
        # ``state`` is a defaultdict: asking for a missing master would enter an empty state for it.
        states = self._stepping.state
        state = states[master].get(key) if master in states else None
        if not isinstance(state, Tensor) or state.numel() != master.numel():
            return None
        return fragment.of(state)

    def optimizer_steps(self, shard: Shard) -> int | None:
        return steps_taken(self._stepping, self._masters[self._fragments[shard.name].group])

    def before_step(self, fn: Callable[[Engine], None]) -> Handle:
        if not self._intercepted:
            self._intercept_step()
            self._intercepted = True
        self._before.append(fn)
        return Handle(lambda: self._before.remove(fn))

    def gradient(self, shard: Shard) -> Tensor | None:
        if not self._in_step:
            raise RuntimeError("gradients are reduced and in place inside before_step(fn) only")
        return self._gradient_slice(self._fragments[shard.name])

    @abstractmethod
    def _intercept_step(self) -> None:
        """Have :meth:`_run_before` called where gradients are reduced and not yet clipped."""

    @abstractmethod
    def _gradient_slice(self, fragment: Fragment) -> Tensor | None:
        """Return the fragment's reduced gradient, one-dimensional, without loss scale, editable."""

    @torch.no_grad()
    def _run_before(self) -> None:
        self._in_step = True
        try:
            for fn in tuple(self._before):
                fn(self)
        finally:
            self._in_step = False


def full_shape(parameter: nn.Parameter) -> torch.Size:
    """Return the unpartitioned shape; a parameter that ZeRO-3 has released is itself empty."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def intercept(target: object, method: str, around: Callable[..., Any]) -> None:
    """Have ``target.method(...)`` call ``around(original, ...)``, on this one object."""
    setattr(target, method, functools.partial(around, getattr(target, method)))


def scale_in_place(tensors: Iterable[Tensor], factor: float) -> None:
    """Multiply by ``factor``; by one, touch nothing."""
    if factor != 1.0:
        for tensor in tensors:
            tensor.mul_(factor)


def sum_over(group: dist.ProcessGroup, values: Tensor) -> Tensor:
    """Sum a small tensor over the ranks of ``group``, on the device that group communicates from."""
    total = values.to(get_accelerator().current_device_name(), copy=True)
    dist.all_reduce(total, group=group)
    return total.to(values.device)
