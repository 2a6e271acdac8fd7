"""The average of weights and anchor, against float64."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_training import worst_ulp

from sfa_hf.rules import average

WEIGHTS = arrays("float32", 17, elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


@given(WEIGHTS, WEIGHTS, st.floats(0, 1))
def test_average_in_fp32_is_close_to_float64(theta, theta_o, beta) -> None:
    before, anchor = torch.from_numpy(theta), torch.from_numpy(theta_o)
    after = before.clone()
    average(after, anchor, beta)
    assert worst_ulp(before, anchor, after, beta) <= 2  # the difference may be twice as large as either


@given(WEIGHTS, WEIGHTS)
def test_beta_zero_and_one_are_exact(theta, theta_o) -> None:
    before, anchor = torch.from_numpy(theta), torch.from_numpy(theta_o)
    kept, replaced = before.clone(), before.clone()
    average(kept, anchor, 0.0)
    average(replaced, anchor, 1.0)
    assert torch.equal(kept, before)
    assert torch.equal(replaced, anchor)
