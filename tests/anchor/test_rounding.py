"""Stochastic rounding is to a neighbour, unbiased, and leaves representable values alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.anchor.rounding import round_stochastically

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def rounded(exact: torch.Tensor, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    out = torch.empty_like(exact, dtype=dtype)
    round_stochastically(exact, out, torch.Generator().manual_seed(seed))
    return out


@DTYPES
@given(value=st.floats(-6e4, 6e4, width=32, allow_subnormal=False))
def test_the_result_is_one_of_the_two_neighbours(dtype: torch.dtype, value: float) -> None:
    exact = torch.full((64,), value)
    error = (rounded(exact, dtype).float() - exact).abs()
    spacing = exact.abs().clamp_min(torch.finfo(dtype).tiny) * torch.finfo(dtype).eps
    assert bool((error <= spacing).all())


@DTYPES
@pytest.mark.parametrize("value", [1.00137, -3.14159, 0.0421, 3.3e-6, -2.1e-7])
def test_the_mean_of_many_roundings_is_the_exact_value(dtype: torch.dtype, value: float) -> None:
    exact = torch.full((200_000,), value)
    results = rounded(exact, dtype).double()
    spread = (results.max() - results.min()).item()
    assert spread > 0
    assert abs(results.mean().item() - exact[0].item()) < 5 * spread / 2 / len(exact) ** 0.5


@DTYPES
def test_representable_values_stay(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    values = torch.tensor([0.0, -0.0, 1.0, -1.5, 0.15625, tiny, tiny / 2, 6e4, float("inf")]).to(dtype)
    assert torch.equal(rounded(values.float(), dtype), values)
    assert rounded(torch.tensor([float("nan")]), dtype).isnan().all()


@DTYPES
def test_the_same_seed_rounds_the_same_way(dtype: torch.dtype) -> None:
    exact = torch.randn(1000)
    assert torch.equal(rounded(exact, dtype, seed=3), rounded(exact, dtype, seed=3))
    assert not torch.equal(rounded(exact, dtype, seed=3), rounded(exact, dtype, seed=4))
