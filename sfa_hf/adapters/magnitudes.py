r"""DoRA (arXiv 2402.09353): the average of two weights m V / ||V||, V = W + s B A, is one of them again.

With d = m / ||V|| of each row, the average of the rows is

    (1 - \beta) d V + \beta d_o V_o = e (W + \Delta),   e = (1 - \beta) d + \beta d_o,
    \Delta = ((1 - \beta) d s B A + \beta d_o s B_o A_o) / e,

whose rank is that of both updates together, as in LoRA, and whose magnitude is e ||W + \Delta||. From the
base (B_o A_o = 0) \Delta is B A with scaled rows: exact in the rank that there is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sfa_hf.adapters.base_weight import products_with_rows, squared_row_norms
from sfa_hf.adapters.groups import Group, Squares
from sfa_hf.adapters.low_rank import Pair, average, squared_norm
from sfa_hf.distributed.processes import from_first_process


class DoraLayer:
    r"""One layer in training beside its anchor; made and used by all ranks together.

    Args:
        group: of a DoRA layer.
        theta: the factors and the magnitude in training, whole and in fp64.
        theta_o: those of the anchor.

    Attributes:
        squares: of the last merge: distances are those of the whole weights.
    """

    def __init__(self, group: Group, theta: Mapping[str, Tensor], theta_o: Mapping[str, Tensor]) -> None:
        assert group.low_rank is not None
        assert group.low_rank.magnitude is not None
        self._group, self._low_rank, self._magnitude = group, group.low_rank, group.low_rank.magnitude
        self._now, self._then = (
            self._low_rank.pair(*(values[name] for name in group.factors)).scaled(self._low_rank.scaling)
            for values in (theta, theta_o)
        )
        self._squares, self._products = self._rows_with(self._now, self._then)
        self._d, self._d_o = (
            values[self._magnitude].reshape(-1) / self._norms(pair, products)
            for values, pair, products in zip(
                (theta, theta_o), (self._now, self._then), self._products, strict=True
            )
        )

    def merged(self, beta: float, *, truncate: bool) -> dict[str, Tensor]:
        r"""The new factors and magnitude.

        Args:
            beta: \beta.
            truncate: whether the anchor has an update too, so that the sum of both is cut to the rank.
        """
        e = (1 - beta) * self._d + beta * self._d_o
        of_now, of_then = ((1 - beta) * self._d / e)[None], (beta * self._d_o / e)[None]
        if truncate:
            pair, discarded, energy, *_ = from_first_process(
                lambda: average(self._now, self._then, of_now, of_then)
            )
        else:
            pair, discarded = self._now.scaled(of_now), 0.0
            energy = squared_norm(pair)
        before = self._distance(self._now, self._d, self._products)
        _, products = self._rows_with(pair, self._then)
        self.squares = Squares(before, self._distance(pair, e, products), discarded, energy)
        factors = self._low_rank.factors(pair.scaled(1 / self._low_rank.scaling))
        new = dict(zip(self._group.factors, factors, strict=True))
        return {**new, self._magnitude: e * self._norms(pair, products[0])}

    def _rows_with(self, one: Pair, other: Pair) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        right = torch.cat([one.right[0], other.right[0]])
        squares, products = products_with_rows(self._low_rank.module, right)
        rank = one.right.shape[-2]
        return squares, (products[:, :rank], products[:, rank:])

    def _norms(self, pair: Pair, products: Tensor) -> Tensor:
        return squared_row_norms(self._squares, products, pair).clamp(min=0).sqrt()

    def _distance(self, pair: Pair, d: Tensor, products: tuple[Tensor, Tensor]) -> float:
        """||d (W + update) - d_o (W + anchor's update)||_F^2."""
        apart = d - self._d_o
        now, then = pair.scaled(d[None]), self._then.scaled(-self._d_o[None])
        difference = Pair(torch.cat([now.left, then.left], -1), torch.cat([now.right, then.right], -2))
        with_rows = torch.cat(products, -1) * apart[:, None]
        squares = squared_row_norms(apart.square() * self._squares, with_rows, difference)
        return float(squares.sum().clamp(min=0))
