"""Adam's second moments of weights that stand still, in float64 on one process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tiny_training import rows


def second_moments(
    model: nn.Module, batches: int, batch: int, *, clip: float, beta2: float
) -> dict[str, Tensor]:
    r"""\hat v after the clipped gradients of ``rows()``, in their order."""
    model = model.double()
    tokens = torch.stack([row["input_ids"] for row in rows()])[: batches * batch]
    v = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for part in tokens.split(batch):
        model.zero_grad()
        model(input_ids=part, labels=part).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        for name, p in model.named_parameters():
            assert p.grad is not None
            v[name] = beta2 * v[name] + (1 - beta2) * p.grad**2
    return {name: value / (1 - beta2**batches) for name, value in v.items()}
