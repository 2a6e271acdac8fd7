"""A Fisher merge in training as its formula reads, in float64 and on whole parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-6


def expected(
    theta: Tensor, theta_o: Tensor, f: Tensor, f_o: Tensor | None, *, beta: float, power: float
) -> Tensor:
    """The formula as the paper would write it, in float64."""
    f_o = torch.full_like(f, f.mean()) if f_o is None else f_o.double()
    epsilon = EPSILON * ((f.sum() + f_o.sum()) / (2 * f.numel()) or 1.0)
    w_o, w = beta * (f_o + epsilon) ** power, (1 - beta) * (f + epsilon) ** power
    return (w_o * theta_o.double() + w * theta.double()) / (w_o + w)


def ulps(exact: Tensor, found: Tensor, *operands: Tensor) -> float:
    """Largest error in fp32 ulps of the largest of the tensors."""
    largest = np.max([t.abs().numpy() for t in (found, *operands)], axis=0, initial=0).astype(np.float32)
    return float(np.max(np.abs(exact.numpy() - found.double().numpy()) / np.spacing(largest), initial=0))
