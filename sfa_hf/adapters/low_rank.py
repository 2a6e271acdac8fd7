r"""Products of two thin matrices, :math:`L R`: their sums, norms and best approximations, never the product."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST = 1e-2
"""Smallest singular value that a turned factor is given, in parts of its largest."""


class Pair(NamedTuple):
    r"""The matrices L R, one per batch entry.

    Attributes:
        left: L, of shape (batch, rows, rank).
        right: R, of shape (batch, rank, columns).
    """

    left: Tensor
    right: Tensor

    def scaled(self, factor: float | Tensor) -> Pair:
        """Multiply the product by a number, or each row by its own: of shape (batch, rows)."""
        return Pair(self.left * (factor[..., None] if isinstance(factor, Tensor) else factor), self.right)


class Truncated(NamedTuple):
    """The best approximation of a given rank.

    Attributes:
        pair: the approximation.
        discarded: squared Frobenius norm of what it leaves out.
        energy: squared Frobenius norm of the whole.
    """

    pair: Pair
    discarded: float
    energy: float


def stacked(one: Pair, other: Pair) -> Pair:
    """The sum of two products, as a product of twice the rank."""
    return Pair(torch.cat([one.left, other.left], -1), torch.cat([one.right, other.right], -2))


def squared_norm(pair: Pair) -> float:
    """Squared Frobenius norm, summed over the batch; exact where the product cancels out."""
    _, _, core = _cored(pair)
    return float(core.square().sum())


def truncated(pair: Pair, like: Pair) -> Truncated:
    r"""The best approximation of ``pair`` (Eckart and Young) with the rank of ``like``.

    With L = Q_L R_L and R^T = Q_R R_R, the singular values of L R are those of the small core R_L R_R^T.
    The factors of the result are not unique. The right one is that of ``like`` turned into the new row space
    by the smallest rotation, with the same singular values: it keeps its scale, Adam's moments keep most of
    their meaning, and no direction of it dies where the product has a smaller rank.

    Args:
        pair: of any rank; fp64.
        like: the factors in training, of the rank that is wanted.
    """
    q_left, q_right, core = _cored(pair)
    u, s, vh = torch.linalg.svd(core, full_matrices=False)
    rank = min(like.right.shape[-2], s.shape[-1])
    energy, kept = s.square().sum(), s[..., :rank].square().sum()
    rows = vh[..., :rank, :] @ q_right.mT  # orthonormal: the new row space
    turned, its_inverse = _turned(like.right, rows)
    left = (q_left @ u[..., :rank]) * s[..., None, :rank]
    return Truncated(Pair(left @ its_inverse, turned @ rows), float(energy - kept), float(energy))


def _cored(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Q_L, Q_R and the core of Q_L core Q_R^T = L R."""
    q_left, r_left = torch.linalg.qr(pair.left)
    q_right, r_right = torch.linalg.qr(pair.right.mT)
    return q_left, q_right, r_left @ r_right.mT


def _turned(right: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """M of shape (rank, number of rows), and M^+: M rows is as ``right`` turned into the space of the rows."""
    p, _, zh = torch.linalg.svd(right @ rows.mT, full_matrices=False)
    scale = torch.linalg.svdvals(right)[..., : zh.shape[-2]]
    largest = scale[..., :1]
    scale = scale.maximum(_SMALLEST * torch.where(largest > 0, largest, torch.ones_like(largest)))
    return (p * scale[..., None, :]) @ zh, (zh.mT / scale[..., None, :]) @ p.mT
