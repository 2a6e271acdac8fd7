"""What an optimizer does with weights that were edited, asked of the optimizer itself before the first step.

Some optimizers step from weights of their own (fp32 masters in their state, Lookahead's slow weights,
schedule-free's averages): an edit of the parameters is undone by a later step. Others step inside backward
and do nothing when ``step()`` is called. No name tells which, so a twin of the optimizer, on a few entries of
a few parameters, takes some steps, and the twin's weights are looked at.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_KNOWN = (
    "torch.optim.",
    "transformers.optimization.",
    "bitsandbytes.optim.",
    "deepspeed.ops.",
)
"""Modules whose optimizers step the parameters from the parameters, when they are told to."""

_ENTRIES = 8
"""Entries per dimension of a twin's parameter. It has all dimensions: Muon and GaLore look at them."""
_PER_GROUP = 3
"""Parameters per group that a twin steps; the others have no gradient."""
_STEPS = 101
"""Steps before and after the edit. Lookahead synchronises every 5 to 10, rarely 100, and may take its slow
weights at its first synchronisation."""
_TOLD_STEPS = 3
_RATE = 1e-6
"""Learning rate of the twins: over all steps far below the edit, also where steps grow with the weights."""
_EDIT = 0.5
_KEPT = 0.9
"""Share of the edit that must be left; what decays or trust ratios take is below a hundredth."""
_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
_PATCHED = ("step", "zero_grad")
"""Methods that learning-rate schedulers replace on the instance: the replacement steps the original."""


@dataclass(frozen=True)
class Conduct:
    """What was seen of an optimizer.

    Attributes:
        keeps_edits: whether later steps start from weights that were edited.
        steps_when_told: whether ``step()`` moves the weights along the gradients that are there.
    """

    keeps_edits: bool
    steps_when_told: bool


class CannotAskError(Exception):
    """No twin of the optimizer could be made or stepped."""


def conduct(optimizer: torch.optim.Optimizer) -> Conduct:
    """Ask an optimizer, which is not changed.

    Args:
        optimizer: not in a wrapper of accelerate's; with or without state.

    Raises:
        CannotAskError: its twin cannot be made or does not step.
    """
    if f"{type(optimizer).__module__}.".startswith(_KNOWN):
        return Conduct(keeps_edits=True, steps_when_told=True)
    generators = torch.random.get_rng_state()
    try:
        return _conduct_of_twins(optimizer)
    except Exception as error:
        raise CannotAskError(f"{type(error).__name__}: {error}") from error
    finally:
        torch.random.set_rng_state(generators)


def _conduct_of_twins(optimizer: torch.optim.Optimizer) -> Conduct:
    plain, edited = _Twin(optimizer), _Twin(optimizer)
    for twin in (plain, edited):
        twin.take_steps(_STEPS, _RATE)
    edited.edit(_EDIT)
    for twin in (plain, edited):
        twin.take_steps(_STEPS, _RATE)
    left = [float((b - a).mean()) for a, b in zip(plain.weights(), edited.weights(), strict=True)]
    before = plain.weights()
    plain.take_steps(_TOLD_STEPS, rate=0.1)
    moved = any(not torch.equal(a, b) for a, b in zip(before, plain.weights(), strict=True))
    return Conduct(all(each > _KEPT * _EDIT for each in left), moved or not left)


class _Twin:
    """A copy of an optimizer on its own small parameters."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._memo: dict[int, Any] = {}
        self._inside = list(_optimizers_inside(optimizer))
        self._small = self._small_parameters()
        self._optimizer = self._twin_of(optimizer)
        self._gradients = [torch.randn(p.shape).to(p) * 0.01 for p in self._small]

    def take_steps(self, steps: int, rate: float) -> None:
        for group in self._groups():
            if isinstance(group.get("lr"), (float, int, Tensor)):
                group["lr"] = torch.full_like(group["lr"], rate) if isinstance(group["lr"], Tensor) else rate
        for _ in range(steps):
            for parameter, gradient in zip(self._small, self._gradients, strict=True):
                parameter.grad = gradient.clone()
            type(self._optimizer).step(self._optimizer)

    @torch.no_grad()
    def edit(self, by: float) -> None:
        for parameter in self._small:
            parameter.add_(by)

    def weights(self) -> list[Tensor]:
        return [parameter.detach().double().clone() for parameter in self._small]

    def _small_parameters(self) -> list[nn.Parameter]:
        """Fill the memo with a small twin for every parameter; return those that are stepped."""
        stepped: dict[int, nn.Parameter] = {}
        for group in self._all_groups():
            taken = 0
            for parameter in _as_list(group["params"]):
                twin = self._memo.setdefault(
                    id(parameter), nn.Parameter(_corner(parameter), parameter.requires_grad)
                )
                if taken < _PER_GROUP and twin.numel() and twin.requires_grad:
                    stepped[id(twin)] = twin
                    taken += 1
        return list(stepped.values())

    def _twin_of(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        # Optimizer.__getstate__ leaves out what a subclass keeps beside groups and state.
        for each in self._inside:
            self._memo[id(each)] = type(each).__new__(type(each))
        shapes = {p.shape for group in self._all_groups() for p in _as_list(group["params"])}
        for value in _tensors_inside([vars(each) for each in self._inside]):
            if value.shape in shapes:
                self._memo.setdefault(id(value), _corner(value))
        for each in self._inside:
            twin = self._memo[id(each)]
            for name, value in vars(each).items():
                if name not in _PATCHED:
                    twin.__dict__[name] = (
                        OrderedDict() if name in _HOOKS else copy.deepcopy(value, self._memo)
                    )
        return self._memo[id(optimizer)]

    def _all_groups(self) -> list[dict[str, Any]]:
        return [group for each in self._inside for group in each.param_groups]

    def _groups(self) -> Iterator[dict[str, Any]]:
        for each in self._inside:
            yield from self._memo[id(each)].param_groups


def _corner(values: Tensor) -> Tensor:
    """The first entries, per dimension, of this process' part."""
    local = values.to_local() if isinstance(values, DTensor) else values
    return local.detach()[tuple(slice(0, _ENTRIES) for _ in local.shape)].clone()


def _tensors_inside(value: Any) -> Iterator[Tensor]:
    """All tensors in mappings, lists and tuples, one in another."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors_inside([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors_inside(each)


def _optimizers_inside(optimizer: torch.optim.Optimizer) -> Iterator[torch.optim.Optimizer]:
    """The optimizer, and those that it keeps as attributes, in lists or in mappings."""
    yield optimizer
    for value in vars(optimizer).values():
        held = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, (list, tuple))
            else [value]
        )
        for each in held:
            if isinstance(each, torch.optim.Optimizer):
                yield from _optimizers_inside(each)


def _as_list(parameters: Any) -> list[Any]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)
