"""A penalty added to reduced gradients by an engine, and the same training in float64 with it in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from sfa_hf import engines

STRENGTH = 3.0
CLIP = 0.05
RATE = 0.5


class Penalty(TrainerCallback):
    """Adds STRENGTH (theta - theta_o) to the gradient: L2 towards the start, before clipping."""

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
        self.engine = engines.attach(model, optimizer)
        start = {shard.name: shard.data.clone() for shard in self.engine.shards()}
        self.calls = 0
        self.handle = self.engine.before_step(lambda engine: self._add(engine, start))

    def _add(self, engine: engines.Engine, start: dict[str, Tensor]) -> None:
        self.calls += 1
        for shard in engine.shards():
            gradient = engine.gradient(shard)
            if gradient is not None:
                gradient.add_(shard.data - start[shard.name], alpha=STRENGTH)


class InOrder(Trainer):
    """Takes the rows in their order, so that another training can take the same."""

    def _get_train_sampler(self, train_dataset=None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def reference(
    model: nn.Module, rows: Sequence[dict[str, Tensor]], steps: int, batch: int
) -> dict[str, Tensor]:
    """Train a copy in float64 by clipped SGD on loss + STRENGTH/2 ||theta - theta_o||^2, one batch a step."""
    model = model.double()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in parameters.items()}
    for step in range(steps):
        chosen = rows[step * batch : (step + 1) * batch]
        inputs = {key: torch.stack([row[key] for row in chosen]) for key in chosen[0]}
        penalty = sum(((p - start[name]) ** 2).sum() for name, p in parameters.items())
        model.zero_grad()
        (model(**inputs)["loss"] + STRENGTH / 2 * penalty).backward()
        nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.sub_(parameter.grad, alpha=RATE)
    return {name: p.detach() for name, p in parameters.items()}
