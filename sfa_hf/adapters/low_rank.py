r"""Products L R of two thin matrices: their averages and norms; the product itself is never made."""

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


class Average(NamedTuple):
    """The best approximation of an average of two products.

    Attributes:
        pair: the approximation.
        discarded: squared Frobenius norm of what it leaves out.
        energy: squared Frobenius norm of the average.
        before: squared distance of the first product from the second.
        after: squared distance of the approximation from the second.
    """

    pair: Pair
    discarded: float
    energy: float
    before: float
    after: float


def squared_norm(pair: Pair) -> float:
    """Squared Frobenius norm, summed over the batch."""
    r_left, r_right = (torch.linalg.qr(each).R for each in (pair.left, pair.right.mT))
    return _energy(r_left @ r_right.mT)


def average(now: Pair, then: Pair, weight: float | Tensor, weight_o: float | Tensor) -> Average:
    r"""The best approximation (Eckart and Young) of ``weight now + weight_o then``, in the rank of ``now``.

    Both are stacked to a product of twice the rank, L R, of which L = Q_L R_L and R^T = Q_R R_R: its singular
    values are those of the small core R_L R_R^T, and so are all distances.

    The factors of the result are not unique. The right one is that of ``now`` turned into the new row space
    by the smallest rotation, with the same singular values: it keeps its scale, Adam's moments keep most of
    their meaning, and no direction of it dies where the average has a smaller rank.

    Args:
        now: of the rank that is wanted; fp64.
        then: of any rank.
        weight: a number, or one per row: of shape (batch, rows).
        weight_o: the same, for ``then``.
    """
    rows = isinstance(weight, Tensor) or isinstance(weight_o, Tensor)
    left = torch.cat(
        [now.scaled(weight).left, then.scaled(weight_o).left] if rows else [now.left, then.left], -1
    )
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(torch.cat([now.right, then.right], -2).mT)
    rank = now.right.shape[-2]

    def core(of_now: float, of_then: float) -> Tensor:
        scales = torch.full_like(r_left[..., :1, :], of_then)
        scales[..., :rank] = of_now
        return (r_left * scales) @ r_right.mT

    wanted = core(1.0, 1.0) if rows else core(float(weight), float(weight_o))
    u, s, vh = torch.linalg.svd(wanted, full_matrices=False)
    kept = min(rank, s.shape[-1])
    u, s, vh, lost = u[..., :kept], s[..., :kept], vh[..., :kept, :], s[..., kept:]
    new_rows = vh @ q_right.mT
    turned, its_inverse = _turned(now.right, new_rows)
    pair = Pair(((q_left @ u) * s[..., None, :]) @ its_inverse, turned @ new_rows)
    new = (u * s[..., None, :]) @ vh
    return Average(
        pair, _energy(lost), _energy(wanted), _energy(core(1.0, -1.0)), _energy(new - core(0.0, 1.0))
    )


def _energy(values: Tensor) -> float:
    return float(values.square().sum())


def _turned(right: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """M and M^+ so that M rows is ``right``, turned into the space of the orthonormal rows."""
    p, _, zh = torch.linalg.svd(right @ rows.mT, full_matrices=False)
    scale = torch.linalg.svdvals(right)[..., : zh.shape[-2]]
    largest = scale[..., :1]
    scale = scale.maximum(_SMALLEST * torch.where(largest > 0, largest, torch.ones_like(largest)))
    return (p * scale[..., None, :]) @ zh, (zh.mT / scale[..., None, :]) @ p.mT
