r"""Rows of the frozen weight W under a DoRA layer: what its magnitudes are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sfa_hf.adapters.low_rank import Pair
from sfa_hf.engines.sharded import is_sharded, whole

_ROWS = 1024
"""Rows that are turned to fp64 at once."""


def products_with_rows(layer: Any, right: Tensor) -> tuple[Tensor, Tensor]:
    r"""||W_i||^2 of each row of W, and W_i R^T; a collective call where W is partitioned.

    Args:
        layer: of PEFT.
        right: R, of shape (rank, columns), fp64.
    """
    with _whole(layer) as weight:
        squares, products = [], []
        for rows in weight.split(_ROWS):
            exact = rows.double()
            squares.append(exact.square().sum(-1))
            products.append(exact @ right.to(exact.device).mT)
    return torch.cat(squares).cpu(), torch.cat(products).cpu()


def squared_row_norms(squares: Tensor, products: Tensor, pair: Pair) -> Tensor:
    r"""||W_i + (L R)_i||^2 from what :func:`products_with_rows` gave for R; of shape (rows,)."""
    left, right = pair.left[0], pair.right[0]
    return squares + 2 * (left * products).sum(-1) + ((left @ (right @ right.mT)) * left).sum(-1)


@contextmanager
def _whole(layer: Any) -> Iterator[Tensor]:
    """W as a matrix whose rows are those of B A; dequantised."""
    from peft.utils.integrations import dequantize_module_weight  # noqa: PLC0415 - an optional extra

    base = layer.get_base_layer()
    if is_sharded(base.weight):
        with whole(base.weight) as weight:
            yield _oriented(layer, weight)
    else:
        yield _oriented(layer, dequantize_module_weight(base).detach())


def _oriented(layer: Any, weight: Tensor) -> Tensor:
    from peft.tuners.lora.layer import Embedding  # noqa: PLC0415 - an optional extra

    if isinstance(layer, Embedding) or getattr(layer, "fan_in_fan_out", False):
        return weight.mT
    return weight.reshape(weight.shape[0], -1)
