"""Each rule in float64 against its definition, and against PEFT's functions where those follow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from peft.utils import merge_utils
from torch import Tensor

from sfa_hf.errors import ConfigError
from sfa_hf.rules import (
    BLOCK,
    Average,
    Dare,
    Fisher,
    MergeRule,
    Slerp,
    TaskArithmetic,
    Ties,
    WiseFT,
    known_rules,
    merge_state_dicts,
)

ENTRIES = 24
# Few distinct values, so that equal magnitudes and sums of zero come up often.
COARSE = arrays("float64", ENTRIES, elements=st.integers(-6, 6).map(float)).map(torch.from_numpy)
FINE = arrays("float64", ENTRIES, elements=st.floats(-1e3, 1e3)).map(torch.from_numpy)
TENSORS = st.one_of(COARSE, FINE)
MODELS = st.lists(TENSORS, min_size=1, max_size=4)
WEIGHTS = st.floats(-2, 2)
FEW = settings(max_examples=60, deadline=None)
FEWER = settings(max_examples=25, deadline=None)


def merged(rule: MergeRule, models: Sequence[Tensor], base: Tensor | None = None, **more: Any) -> Tensor:
    whole = None if base is None else {"w": base}
    return merge_state_dicts(rule, [{"w": model} for model in models], whole, **more)["w"]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-9)


def naive_ties(
    taus: Sequence[Tensor], thresholds: Sequence[float], weights: Sequence[float], lambda_: float
) -> list[float]:
    """The definition, entry by entry."""
    result = []
    for entry in zip(*(tau.tolist() for tau in taus), strict=True):
        kept = [x if abs(x) >= t else 0.0 for x, t in zip(entry, thresholds, strict=True)]
        positive = sum(w * x for w, x in zip(weights, kept, strict=True)) >= 0
        agreeing = [(w, x) for w, x in zip(weights, kept, strict=True) if x and (x > 0) == positive]
        total = sum(w for w, _ in agreeing)
        result.append(lambda_ * sum(w * x for w, x in agreeing) / total if total else 0.0)
    return result


def kth_largest(tau: Tensor, density: float) -> float:
    return sorted(tau.abs().tolist(), reverse=True)[max(1, int(density * tau.numel())) - 1]


@FEW
@given(MODELS, st.data())
def test_average_is_the_weighted_sum(models: list[Tensor], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 2), min_size=len(models), max_size=len(models)))
    expected = sum(w * m for w, m in zip(weights, models, strict=True)) / sum(weights)
    close(merged(Average(weights=weights, normalize=True), models), expected)
    close(merged(Average(), models), sum(models) / len(models))


@FEW
@given(TENSORS, TENSORS, st.floats(0, 1))
def test_wise_ft_is_the_line_from_the_base(base: Tensor, tuned: Tensor, alpha: float) -> None:
    close(merged(WiseFT(alpha=alpha), [tuned], base), (1 - alpha) * base + alpha * tuned)
    assert torch.equal(merged(WiseFT(alpha=0), [tuned], base), base)
    assert torch.equal(merged(WiseFT(alpha=1), [tuned], base), tuned)


@FEW
@given(TENSORS, MODELS, WEIGHTS)
def test_task_arithmetic_is_pefts(base: Tensor, models: list[Tensor], lambda_: float) -> None:
    weights = [0.5 + k for k in range(len(models))]
    theirs = merge_utils.task_arithmetic([model - base for model in models], torch.tensor(weights).double())
    ours = merged(TaskArithmetic(**{"lambda": lambda_}, weights=weights), models, base)
    close(ours, base + lambda_ * theirs)


@FEWER
@given(TENSORS, MODELS, st.floats(0.05, 1), WEIGHTS)
def test_ties_is_its_definition(base: Tensor, models: list[Tensor], density: float, lambda_: float) -> None:
    weights = [1.0 + k for k in range(len(models))]
    taus = [model - base for model in models]
    thresholds = [kth_largest(tau, density) for tau in taus]
    rule = Ties(density=density, threshold="tensor", weights=weights, **{"lambda": lambda_})
    expected = torch.tensor(naive_ties(taus, thresholds, weights, lambda_), dtype=torch.float64)
    close(merged(rule, models, base), base + expected)


@FEWER
@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(0.1, 0.9))
def test_ties_is_pefts_where_no_magnitudes_are_equal(seed: int, number: int, density: float) -> None:
    models = list(torch.randn(number, ENTRIES, generator=torch.Generator().manual_seed(seed)).double())
    theirs = merge_utils.ties([model.clone() for model in models], torch.ones(len(models)).double(), density)
    close(merged(Ties(density=density, threshold="tensor"), models, torch.zeros(ENTRIES).double()), theirs)


@FEWER
@given(st.lists(st.lists(TENSORS, min_size=2, max_size=2), min_size=1, max_size=3), st.floats(0.05, 1))
def test_one_threshold_over_the_vector(pairs: list[list[Tensor]], density: float) -> None:
    base = {"a": torch.ones(ENTRIES).double(), "b": torch.zeros(4, ENTRIES // 4).double()}
    models = [{"a": a, "b": b.view(4, -1)} for a, b in pairs]
    taus = [torch.cat([(model[name] - base[name]).flatten() for name in base]) for model in models]
    expected = naive_ties(taus, [kth_largest(tau, density) for tau in taus], [1.0] * len(taus), 1.0)
    result = merge_state_dicts(Ties(density=density), models, base)
    moved = torch.cat([(result[name] - base[name]).flatten() for name in base])
    close(moved, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_threshold_is_exact_over_many_blocks(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tau = torch.randn(2 * BLOCK + 77, dtype=dtype) * torch.logspace(-30, 5, 2 * BLOCK + 77, dtype=dtype)
    rule = Ties(density=0.37, threshold="tensor")
    result = merged(rule, [tau], torch.zeros_like(tau))
    threshold = tau.abs().sort(descending=True).values[int(0.37 * tau.numel()) - 1]
    assert torch.equal(result, torch.where(tau.abs() >= threshold, tau, 0))


@FEW
@given(TENSORS, TENSORS, st.floats(0, 1))
def test_slerp_is_the_great_circle(a: Tensor, b: Tensor, t: float) -> None:
    length = a.norm() * b.norm()
    cosine = float(a @ b / length) if length > 0 else 1.0
    if abs(cosine) > 1 - 1e-9:
        close(merged(Slerp(t=t), [a, b]), (1 - t) * a + t * b)
        return
    angle = math.acos(cosine)
    expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
    torch.testing.assert_close(merged(Slerp(t=t), [a, b]), expected, rtol=1e-5, atol=1e-6)


@FEW
@given(st.floats(0.1, 3), st.floats(0, 1))
def test_slerp_keeps_the_length(angle: float, t: float) -> None:
    a = torch.tensor([2.0, 0.0], dtype=torch.float64)
    b = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle)], dtype=torch.float64)
    between = merged(Slerp(t=t), [a, b])
    assert between.norm().item() == pytest.approx(2)
    assert math.atan2(between[1].item(), between[0].item()) == pytest.approx(t * angle, abs=1e-9)


@FEW
@given(TENSORS, st.floats(0, 0.95), st.integers(0, 9))
def test_dare_keeps_rescaled_entries_or_none(tau: Tensor, drop: float, seed: int) -> None:
    result = merged(Dare(drop=drop, seed=seed), [tau], torch.zeros_like(tau))
    for was, now in zip(tau.tolist(), result.tolist(), strict=True):
        assert now == 0 or now == pytest.approx(was / (1 - drop))


def test_dare_drops_by_chance_seed_model_and_name() -> None:
    ones, zero = torch.ones(3 * BLOCK).double(), torch.zeros(3 * BLOCK).double()
    first = merged(Dare(drop=0.9), [ones], zero)
    assert (first != 0).double().mean().item() == pytest.approx(0.1, abs=0.003)
    assert first.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(first, merged(Dare(drop=0.9), [ones], zero))
    assert not torch.equal(first, merged(Dare(drop=0.9, seed=1), [ones], zero))
    two = merged(Dare(drop=0.9), [ones, ones], zero)
    assert torch.equal(two.unique(), torch.tensor([0.0, 10.0, 20.0]).double().mul(1 / (10 * (1 - 0.9))))
    other = merge_state_dicts(Dare(drop=0.9), [{"v": ones}], {"v": zero})["v"]
    assert not torch.equal(first, other)


@FEW
@given(MODELS)
def test_dare_with_sign_election_is_ties_without_trimming(models: list[Tensor]) -> None:
    base = torch.zeros(ENTRIES).double()
    close(merged(Dare(drop=0, sign_election=True), models, base), merged(Ties(density=1), models, base))
    close(merged(Dare(drop=0), models, base), merged(TaskArithmetic(), models, base))


POSITIVE = arrays("float64", ENTRIES, elements=st.floats(0, 10)).map(torch.from_numpy)


@FEW
@given(st.tuples(TENSORS, TENSORS), st.tuples(POSITIVE, POSITIVE), st.floats(0, 1), st.sampled_from([0.5, 1]))
def test_fisher_is_its_definition(
    thetas: tuple[Tensor, Tensor], fs: tuple[Tensor, Tensor], beta: float, power: float
) -> None:
    (theta_o, theta), (f_o, f) = thetas, fs
    rule = Fisher(weights=[beta, 1 - beta], power=power, epsilon=1e-3)
    epsilon = 1e-3 * (float(f.mean() + f_o.mean()) / 2 or 1.0)
    w_o, w = beta * (f_o + epsilon) ** power, (1 - beta) * (f + epsilon) ** power
    result = merged(rule, [theta_o, theta], importances=[{"w": f_o}, {"w": f}])
    close(result, (w_o * theta_o + w * theta) / (w_o + w))


@FEW
@given(TENSORS, TENSORS, st.floats(0, 1), st.floats(0, 1e-12))
def test_fisher_with_the_same_f_everywhere_is_the_average(
    theta_o: Tensor, theta: Tensor, beta: float, f: float
) -> None:
    flat = {"w": torch.full((ENTRIES,), f).double()}
    result = merged(Fisher(weights=[beta, 1 - beta]), [theta_o, theta], importances=[flat, flat])
    close(result, beta * theta_o + (1 - beta) * theta)


@pytest.mark.parametrize("name", sorted(known_rules()))
def test_models_equal_to_each_other_stay(name: str) -> None:
    rule = known_rules()[name]()
    theta = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    base = theta if rule.needs_base else None
    models = [theta.clone() for _ in range(rule.exactly or 3)]
    importances = [{"w": torch.rand(50).double()} for _ in models] if rule.needs_importances else ()
    close(merged(rule, models, base, importances=importances), theta)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Average(weights=[0.5, 0.4]), "sum to 0.9"),
        (Average(weights=[1.0, -1.0], normalize=True), "sum to 0 "),
        (Average(weights=[1.0]), "holds 1 for 2 models"),
        (TaskArithmetic(weights=[1.0]), "holds 1 for 2 models"),
        (Ties(weights=[0.0, 0.0]), "are all 0"),
        (Dare(weights=[1.0, -1.0], sign_election=True), "holds -1"),
        (Fisher(weights=[0.0, 0.0]), "are all 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(rule: MergeRule, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule.check(2)
