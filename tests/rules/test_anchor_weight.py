"""The weights of a Fisher merge in training: closed form, limits, and no NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfa_hf.rules import EPSILON, anchor_weight, average

BETAS = st.floats(0, 1, allow_nan=False)
# Over their mean, as a merge gives them: up to twice the number of entries.
MOMENTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e10)), min_size=1, max_size=6)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.integers(1, 7), st.floats(0.01, 0.99), st.integers(0, 2**31), st.floats(0, 4))
def test_tasks_merged_once_each_are_the_exponentially_weighted_fisher_merge(
    tasks: int, beta: float, seed: int, spread: float
) -> None:
    r"""theta_bar_N = sum_j c_j F_j theta_j / sum_j c_j F_j, c_1 = beta^(N-1), c_j = (1-beta) beta^(N-j)."""
    thetas, moments = random(seed, tasks, 50), random(seed + 1, tasks, 50).mul(spread).exp()
    merged, f_bar = thetas[0].clone(), moments[0].clone()
    for theta, f in zip(thetas[1:], moments[1:], strict=True):
        anchor, merged = merged, theta.clone()
        average(merged, anchor, anchor_weight(f.clone(), f_bar, beta, power=1.0))
        f_bar = beta * f_bar + (1 - beta) * f
    c = [beta ** (tasks - 1)] + [(1 - beta) * beta ** (tasks - 1 - j) for j in range(1, tasks)]
    weights = torch.tensor(c, dtype=torch.float64)[:, None] * (moments + EPSILON)
    exact = (weights * thetas).sum(0) / weights.sum(0)
    assert (merged - exact).abs().max() <= 1e-13 * tasks * thetas.abs().max()


@settings(deadline=None)
@given(BETAS, st.floats(0, 1e10), st.sampled_from([0.0, 0.5, 1.0, 1.7, 2.0]), st.integers(0, 2**31))
def test_equal_moments_are_the_average_to_the_bit(beta: float, f: float, power: float, seed: int) -> None:
    theta, theta_o = random(seed, 40), random(seed + 1, 40)
    weights = anchor_weight(torch.full((40,), f, dtype=torch.float64), f, beta, power)
    scalar = theta.clone()
    average(theta, theta_o, weights)
    average(scalar, theta_o, beta)
    assert theta.equal(scalar)


@settings(deadline=None)
@given(BETAS, MOMENTS, st.data(), st.floats(0, 2))
def test_no_moments_make_a_nan_and_shares_stay_between_0_and_1(
    beta: float, moments: list[float], data: st.DataObject, power: float
) -> None:
    before = data.draw(
        st.lists(st.sampled_from([0.0, *moments]), min_size=len(moments), max_size=len(moments))
    )
    f, f_o = (torch.tensor(values, dtype=torch.float64) for values in (moments, before))
    weights = anchor_weight(f.clone(), f_o, beta, power)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    if beta in (0, 1):
        assert weights.tolist() == [beta] * len(moments)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_anchor_keeps_what_it_knows_and_gives_what_it_does_not(power: float) -> None:
    known, unknown = (
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
    )
    kept, given_up = anchor_weight(unknown.clone(), known, 0.5, power).tolist()
    assert kept == pytest.approx(1 / (1 + EPSILON**power), rel=1e-3)
    assert given_up == pytest.approx(1 - kept, rel=1e-3)
