"""A clipped training in float64 with a penalty in the loss: what one added by a callback must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import Trainer

STRENGTH = 3.0
CLIP = 0.05
RATE = 0.5

Weights = Mapping[str, Tensor]
Penalty = Callable[[Weights, Weights], Tensor]
"""``penalty(theta, theta_o)``, written out as the method's paper has it."""


class InOrder(Trainer):
    """Takes the rows in their order, so that another training can take the same."""

    def _get_train_sampler(self, train_dataset=None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def l2(theta: Weights, theta_o: Weights) -> Tensor:
    """STRENGTH/2 ||theta - theta_o||^2."""
    return STRENGTH / 2 * sum(((theta[name] - theta_o[name]) ** 2).sum() for name in theta)


def reference(
    model: nn.Module, rows: Sequence[dict[str, Tensor]], steps: int, batch: int, penalty: Penalty = l2
) -> dict[str, Tensor]:
    """Train a copy in float64 by clipped SGD on loss + penalty, one batch a step."""
    model = model.double()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in parameters.items()}
    for step in range(steps):
        chosen = rows[step * batch : (step + 1) * batch]
        inputs = {key: torch.stack([row[key] for row in chosen]) for key in chosen[0]}
        model.zero_grad()
        (model(**inputs)["loss"] + penalty(parameters, start)).backward()
        nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.sub_(parameter.grad, alpha=RATE)
    return {name: p.detach() for name, p in parameters.items()}
