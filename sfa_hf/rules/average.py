"""The rule of SFA: one weight for every parameter."""

from __future__ import annotations

from torch import Tensor


def average(theta: Tensor, theta_o: Tensor, beta: float) -> None:
    r"""\theta <- (1 - \beta) \theta + \beta \theta_o, in place (arXiv 2501.05559, Alg. 1).

    Args:
        theta: weights in training; edited. Any shape and dtype.
        theta_o: anchor; same shape, dtype and device.
        beta: weight of the anchor; 0 leaves theta and 1 gives theta_o, bit for bit.
    """
    theta.lerp_(theta_o, beta)
