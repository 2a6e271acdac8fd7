"""What a model with adapters computes with: its weights with every adapter merged in, in float64."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback


@torch.no_grad()
def effective(model: nn.Module) -> dict[str, Tensor]:
    """Weights as a base without adapters would need them to compute the same."""
    merged: Any = copy.deepcopy(model).double()
    merged = merged.merge_and_unload()
    return {name: p.detach().clone() for name, p in merged.named_parameters()}


class Effective(TrainerCallback):
    """Effective weights at the start and at each step's end."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.at[state.global_step] = effective(model)

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.at[state.global_step] = effective(model)


class EffectiveAfter(Effective):
    """One of two: Trainer warns of two callbacks of the same class."""


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((one[name] - other[name]).norm()) for name in one}


def error(before: dict, theta_o: dict, after: dict, beta: float) -> float:
    """Largest error of a weight, over the largest distance of one from the anchor."""
    average = {n: (1 - beta) * before[n] + beta * theta_o[n] for n in before}
    largest = max(apart(before, theta_o).values())
    assert largest > 1e-4
    return max(apart(average, after).values()) / largest
