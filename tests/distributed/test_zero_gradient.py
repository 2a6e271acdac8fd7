"""Editing reduced gradients before DeepSpeed clips them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from harness import run_ranks
from torch import Tensor
from zero_rows import (
    Row,
    batch,
    full_masters,
    initial_model,
    loss_of,
    quiet_deepspeed,
    start,
    train_step,
)

from sfa_hf.engines import Engine, Shard, attach

PULL = 0.5
LEARNING_RATE = 0.1
CLIP = 0.2  # well under the norms met here: every step is clipped
STEPS = 3
BETA1 = 0.9

EXACT = [
    *(Row(stage, "fp32", "sgd", clip=CLIP) for stage in (0, 1, 2, 3)),
    *(Row(stage, "fp32", "sgd", clip=CLIP, offload=True) for stage in (1, 2, 3)),
    *(Row(stage, "fp32", "sgd", clip=CLIP, accumulation=2) for stage in (0, 2, 3)),
]
ROUNDED = [
    Row(0, "bf16", "sgd", clip=CLIP),
    *(Row(stage, precision, "sgd", clip=CLIP) for stage in (1, 2, 3) for precision in ("bf16", "fp16")),
    *(
        Row(stage, precision, "sgd", clip=CLIP, offload=True)
        for stage in (1, 2, 3)
        for precision in ("bf16", "fp16")
    ),
    *(Row(stage, "bf16", "sgd", clip=CLIP, sum_in_fp32=True, accumulation=2) for stage in (1, 2, 3)),
    Row(2, "bf16", "sgd", clip=CLIP, round_robin=True),
    Row(0, "bf16", clip=CLIP),
]


@pytest.fixture(scope="module")
def seen() -> list[dict[str, Any]]:
    """What two ranks saw, in one start of two processes."""
    return run_ranks(observe, 2)


def test_a_pull_on_the_gradient_equals_a_penalty_in_the_loss(seen: list[dict[str, Any]]) -> None:
    """Bound: 1e-6 of the weights' size, some 10 roundings of fp32, after three clipped steps."""
    for of_rank in seen:
        assert {label: error for label, error in of_rank["penalty"].items() if error > 1e-6} == {}


def test_the_step_takes_the_edited_gradient_without_rounding_it(seen: list[dict[str, Any]]) -> None:
    """Masters move by the edited gradient, clipped in float64; bound: 4 ulp of fp32, for the step itself."""
    for of_rank in seen:
        assert {label: ulps for label, ulps in of_rank["edit"].items() if ulps > 4} == {}


@pytest.mark.slow
def test_the_step_of_a_compiled_optimizer_takes_it_too() -> None:
    assert max(run_ranks(error_with_fused_adam, 2)) <= 4


def test_nothing_is_edited_in_a_step_that_overflow_skips(seen: list[dict[str, Any]]) -> None:
    for of_rank in seen:
        assert of_rank["calls_under_overflow"] == [[0, 1]] * 3


def test_gradients_that_deepspeed_scales_wrongly_are_refused(seen: list[dict[str, Any]]) -> None:
    assert all("stage 0 in fp16" in of_rank["refusal"] for of_rank in seen)


def test_a_removed_function_is_not_called(seen: list[dict[str, Any]]) -> None:
    assert [of_rank["calls_before_and_after_removal"] for of_rank in seen] == [[1, 1]] * 2


def test_a_gradient_is_read_inside_the_step_only(seen: list[dict[str, Any]]) -> None:
    assert all("inside before_step" in of_rank["read_outside"] for of_rank in seen)


def observe() -> dict[str, Any]:
    with quiet_deepspeed():
        return {
            "penalty": {row.label(): _error_against_penalty(row) for row in EXACT},
            "edit": {row.label(): _error_of_edited_step(row) for row in ROUNDED},
            "calls_under_overflow": [
                _calls_under_overflow(Row(stage, "fp16", "sgd", scale_power=24)) for stage in (1, 2, 3)
            ],
            "refusal": _refusal_of_fp16_stage_0(),
            "calls_before_and_after_removal": _calls_before_and_after_removal(),
            "read_outside": _read_outside(),
        }


def error_with_fused_adam() -> float:
    with quiet_deepspeed():
        return _error_of_edited_step(Row(0, "bf16", "fused", clip=CLIP))


def _error_against_penalty(row: Row) -> float:
    deepspeed_engine = start(row, LEARNING_RATE)
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    theta_o = {shard.name: shard.data.clone() + 0.1 for shard in engine.shards()}

    def pull(engine: Engine) -> None:
        for shard in engine.shards():
            engine.gradient(shard).add_(shard.data - theta_o[shard.name], alpha=PULL)

    engine.before_step(pull)
    for step in range(STEPS):
        train_step(deepspeed_engine, row, step)
    expected = _trained_with_penalty(row)
    return max(
        ((weight - expected[name]).abs().max() / expected[name].abs().max()).item()
        for name, weight in full_masters(deepspeed_engine, row).items()
    )


def _trained_with_penalty(row: Row) -> dict[str, Tensor]:
    """One process, float64, the global batch, the penalty in the loss, torch's own clipping and SGD."""
    model = initial_model(row).double()
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    theta_o = {name: weight.detach() + 0.1 for name, weight in weights.items()}
    decaying = [weight for weight in weights.values() if weight.dim() > 1]
    rest = [weight for weight in weights.values() if weight.dim() <= 1]
    groups = [{"params": decaying, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE)
    for step in range(STEPS):
        optimizer.zero_grad()
        for micro in range(row.accumulation):
            tokens, labels = batch(16 * step + micro, 2 * dist.get_world_size())
            (loss_of(model, tokens, labels) / row.accumulation).backward()
        penalty = sum((weights[name] - theta_o[name]).square().sum() for name in weights)
        (0.5 * PULL * penalty).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
        optimizer.step()
    return {name: weight.detach() for name, weight in weights.items()}


def _error_of_edited_step(row: Row) -> float:
    """Error of one step after an edit, in ulp of the weight; under AdamW of its first moment."""
    deepspeed_engine = start(row, LEARNING_RATE)
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    edited: dict[str, Tensor] = {}

    def edit(engine: Engine) -> None:
        for shard in engine.shards():
            gradient = engine.gradient(shard)
            # Below bf16's resolution, on every other element: neither rounding nor clipping may undo it.
            factor = 1 + 2.0**-11 * (torch.arange(gradient.numel()) % 2)
            edited[shard.name] = gradient.double() * factor
            gradient.mul_(factor)

    engine.before_step(edit)
    before = {shard.name: shard.data.double() for shard in engine.shards()}
    train_step(deepspeed_engine, row, 0)
    squares = torch.tensor([sum(gradient.square().sum() for gradient in edited.values())])
    norm = engine.sum_over_shards(squares).sqrt().item()
    assert norm == pytest.approx(_gradient_norm(row), rel=0.02), (
        "neither loss scale nor a sum over micro-batches"
    )
    clipped = {name: gradient * CLIP / norm for name, gradient in edited.items()}
    return max(
        _ulps_off(row, engine, shard, before[shard.name], clipped[shard.name]) for shard in engine.shards()
    )


def _gradient_norm(row: Row) -> float:
    """Norm of the mean gradient in float64, well above ``CLIP``."""
    model = initial_model(row).double()
    for micro in range(row.accumulation):
        tokens, labels = batch(micro, 2 * dist.get_world_size())
        (loss_of(model, tokens, labels) / row.accumulation).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def _ulps_off(row: Row, engine: Engine, shard: Shard, before: Tensor, gradient: Tensor) -> float:
    if row.optimizer == "sgd":
        decay = 0.1 if len(shard.shape) > 1 else 0.0
        expected, found = before - LEARNING_RATE * (gradient + decay * before), shard.data
    else:
        expected, found = (1 - BETA1) * gradient, engine.optimizer_state("exp_avg", shard)
    largest = torch.maximum(
        expected.abs(), before.abs() if row.optimizer == "sgd" else expected.abs()
    ).float()
    ulp = torch.nextafter(largest, torch.tensor(torch.inf)) - largest
    return ((found.double() - expected).abs() / ulp).max().item()


def _calls_under_overflow(row: Row) -> list[int]:
    deepspeed_engine = start(row)
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    calls: list[Engine] = []
    engine.before_step(calls.append)
    train_step(deepspeed_engine, row, 0)
    assert deepspeed_engine.optimizer.overflow
    in_overflow = len(calls)
    step = 0
    while deepspeed_engine.optimizer.overflow:
        step += 1
        train_step(deepspeed_engine, row, step)
    return [in_overflow, len(calls)]


def _refusal_of_fp16_stage_0() -> str:
    deepspeed_engine = start(Row(0, "fp16"))
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    with pytest.raises(NotImplementedError) as refused:
        engine.before_step(lambda _: None)
    return str(refused.value)


def _calls_before_and_after_removal() -> list[int]:
    row = Row(2, "bf16")
    deepspeed_engine = start(row)
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    calls: list[Engine] = []
    handle = engine.before_step(calls.append)
    train_step(deepspeed_engine, row, 0)
    before = len(calls)
    handle.remove()
    train_step(deepspeed_engine, row, 1)
    return [before, len(calls)]


def _read_outside() -> str:
    deepspeed_engine = start(Row(3, "bf16"))
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    with pytest.raises(RuntimeError) as refused:
        engine.gradient(engine.shards()[0])
    return str(refused.value)
