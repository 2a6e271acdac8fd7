"""Averages of thin products against an SVD of the whole matrix, in float64."""

from __future__ import annotations

import pytest
import torch

from sfa_hf.adapters.low_rank import Pair, average, squared_norm

SHAPES = [
    (1, 9, 7, 2, 2),
    (1, 9, 7, 3, 5),
    (3, 6, 8, 2, 1),
    (1, 4, 30, 4, 4),
    (1, 5, 3, 4, 2),
    (2, 5, 6, 7, 7),
]
"""Batch, rows, columns, rank in training, rank of the anchor; some are larger than a matrix's own."""


def pair(batch: int, rows: int, columns: int, rank: int, seed: int) -> Pair:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Pair(random(batch, rows, rank), random(batch, rank, columns))


def product(of: Pair) -> torch.Tensor:
    return of.left @ of.right


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 1.0])
def test_the_average_is_the_best_of_its_rank(shape: tuple[int, ...], beta: float) -> None:
    *sizes, rank, rank_o = shape
    now, then = pair(*sizes, rank, 1), pair(*sizes, rank_o, 2)
    whole = (1 - beta) * product(now) + beta * product(then)
    u, s, vh = torch.linalg.svd(whole, full_matrices=False)
    best = (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]
    got = average(now, then, 1 - beta, beta)
    assert got.pair.right.shape == now.right.shape
    assert got.pair.left.shape == now.left.shape
    assert torch.allclose(product(got.pair), best, atol=1e-11)
    assert got.energy == pytest.approx(float(whole.square().sum()))
    assert got.discarded == pytest.approx(float((whole - best).square().sum()), rel=1e-9, abs=1e-18)
    assert got.before == pytest.approx(float((product(now) - product(then)).square().sum()))
    assert got.after == pytest.approx(float((best - product(then)).square().sum()), rel=1e-9, abs=1e-18)
    assert squared_norm(now) == pytest.approx(float(product(now).square().sum()))


def test_the_right_factor_is_turned_and_not_stretched() -> None:
    now, then = pair(1, 20, 15, 4, 1), pair(1, 20, 15, 4, 2)
    got = average(now, then, 0.5, 0.5).pair.right
    assert torch.allclose(torch.linalg.svdvals(got), torch.linalg.svdvals(now.right))
    near = Pair(then.left, now.right + 1e-3 * then.right)
    assert (average(now, near, 0.5, 0.5).pair.right - now.right).norm() < 2e-3 * then.right.norm()
    same = average(now, Pair(0 * now.left, now.right), 0.5, 0.5).pair
    assert torch.allclose(same.right, now.right)
    assert torch.allclose(same.left, now.left / 2)


def test_rows_may_have_weights_of_their_own() -> None:
    now, then = pair(1, 9, 7, 7, 1), pair(1, 9, 7, 2, 2)
    weights = torch.rand(2, 1, 9, dtype=torch.float64)
    got = average(now, then, weights[0], weights[1])
    whole = weights[0, ..., None] * product(now) + weights[1, ..., None] * product(then)
    assert torch.allclose(product(got.pair), whole)
    assert got.discarded < 1e-20


def test_a_factor_of_zero_does_not_make_its_partner_infinite() -> None:
    now, then = pair(1, 9, 7, 2, 1), pair(1, 9, 7, 2, 2)
    got = average(Pair(now.left, 0 * now.right), then, 0.5, 0.5).pair
    assert torch.allclose(product(got), product(then) / 2)
