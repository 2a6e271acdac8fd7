"""Engines whose optimizer steps flat fp32 master tensors that hold slices of many parameters."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfa_hf.engines.base import Engine, Handle, Shard


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


class MasterEngine(Engine):
    """The part that every DeepSpeed stage shares: slices of master tensors, and a place before the step.

    Args:
        name: as written to results.json.
        model: the unwrapped model; its names and order are the shards'.
        masters: the tensors that the optimizer steps, as they stand in its ``param_groups``.
        states: the optimizer's ``state``, keyed by those tensors.
        fragments: what this rank owns of each parameter, by ``id(parameter)``.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        masters: Sequence[Tensor],
        states: Mapping[Tensor, Mapping[str, Any]],
        fragments: Mapping[int, Fragment],
    ) -> None:
        self.name = name
        self._masters = masters
        self._states = states
        self._fragments = {
            Shard(
                parameter_name, self._slice(masters[found.group], found), found.offset, full_shape(parameter)
            ): found
            for parameter_name, parameter in model.named_parameters()
            if (found := fragments.get(id(parameter))) is not None
        }
        self._before: list[Callable[[Engine], None]] = []
        self._in_step = False

    def shards(self) -> Sequence[Shard]:
        return tuple(self._fragments)

    def optimizer_state(self, key: str, shard: Shard) -> Tensor | None:
        fragment = self._fragments[shard]
        master = self._masters[fragment.group]
        state = self._states[master].get(key) if master in self._states else None
        if not isinstance(state, Tensor) or state.numel() != master.numel():
            return None
        return self._slice(state, fragment)

    def before_step(self, fn: Callable[[Engine], None]) -> Handle:
        if not self._before:
            self._intercept_step()
        self._before.append(fn)
        return Handle(lambda: self._before.remove(fn))

    def gradient(self, shard: Shard) -> Tensor | None:
        if not self._in_step:
            raise RuntimeError("gradients are reduced and in place inside before_step(fn) only")
        return self._gradient_slice(self._fragments[shard])

    @abstractmethod
    def _intercept_step(self) -> None:
        """Make the optimizer call :meth:`_run_before` where gradients are reduced and not yet clipped."""

    @abstractmethod
    def _gradient_slice(self, fragment: Fragment) -> Tensor | None:
        """The fragment's reduced gradient, one-dimensional, unscaled and editable."""

    @torch.no_grad()
    def _run_before(self) -> None:
        self._in_step = True
        try:
            for fn in tuple(self._before):
                fn(self)
        finally:
            self._in_step = False

    @staticmethod
    def _slice(flat: Tensor, fragment: Fragment) -> Tensor:
        return flat.detach().view(-1).narrow(0, fragment.start, fragment.length)


def full_shape(parameter: nn.Parameter) -> torch.Size:
    """The unpartitioned shape; a parameter that ZeRO-3 has released is itself empty."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def intercept(target: object, method: str, around: Callable[..., Any]) -> None:
    """Have ``target.method(...)`` call ``around(original, ...)``, on this one object."""
    setattr(target, method, functools.partial(around, getattr(target, method)))


def scaled(tensors: Iterator[Tensor] | Sequence[Tensor], factor: float) -> None:
    """Multiply in place; a factor of one touches nothing."""
    if factor != 1.0:
        for tensor in tensors:
            tensor.mul_(factor)
