"""The same run on 1, 2 and 3 processes, under every ZeRO stage and FSDP2, ends in the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from harness import run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from zero_rows import (
    Row,
    batch,
    full_masters,
    initial_model,
    loss_of,
    parameter_groups,
    quiet_deepspeed,
    start,
    train_step,
)

from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.weighting import Weights
from sfa_hf.engines import Engine, attach
from sfa_hf.rules import Average
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.store import open_store

STEPS, MERGE_EVERY, BETA, LEARNING_RATE = 6, 3, 0.3, 1e-2
GLOBAL_BATCH = 6
ROWS = [Row(stage, "fp32") for stage in (0, 1, 2, 3)]

# fp32 reductions of some dozens of terms in another order, six AdamW steps: measured 2e-6 at most.
BOUND = 1e-5


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_and_drift_are_those_of_one_process_in_float64(ranks: int) -> None:
    """Bound: 1e-5 of each tensor's largest weight, and of the drift."""
    expected, drifts = _reference()
    for of_rank in run_ranks(train_in_rows, ranks):
        for label, found in of_rank.items():
            errors = {name: _error(torch.tensor(found["weights"][name]), w) for name, w in expected.items()}
            assert max(errors.values()) < BOUND, (label, errors)
            assert found["drifts"] == pytest.approx(drifts, rel=BOUND), label


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def train_in_rows() -> dict[str, dict[str, Any]]:
    with quiet_deepspeed():
        found = {row.label(): _trained(row) for row in ROWS}
        return {**found, "fsdp2": _trained_under_fsdp2()}


def _trained(row: Row) -> dict[str, Any]:
    deepspeed_engine = start(row, LEARNING_RATE)
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    anchor, drifts = _anchor(engine), []
    for step in range(STEPS):
        train_step(deepspeed_engine, row, step, GLOBAL_BATCH)
        drifts += _merged_drifts(engine, anchor, step)
    masters = full_masters(deepspeed_engine, row)
    return {"weights": {name: weight.tolist() for name, weight in masters.items()}, "drifts": drifts}


def _trained_under_fsdp2() -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fully_shard(initial_model(ROWS[0]), mesh=mesh)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=LEARNING_RATE)
    engine = attach(model, optimizer)
    anchor, drifts = _anchor(engine), []
    share = GLOBAL_BATCH // dist.get_world_size()
    own = slice(share * dist.get_rank(), share * (dist.get_rank() + 1))
    for step in range(STEPS):
        tokens, labels = batch(16 * step, GLOBAL_BATCH)
        optimizer.zero_grad()
        loss_of(model, tokens[own], labels[own]).backward()
        optimizer.step()
        drifts += _merged_drifts(engine, anchor, step)
    weights = {name: p.full_tensor().tolist() for name, p in model.named_parameters() if p.requires_grad}
    return {"weights": weights, "drifts": drifts}


def _merged_drifts(engine: Engine, anchor: ShardBuffer, step: int) -> list[float]:
    if (step + 1) % MERGE_EVERY:
        return []
    merged = merge(engine, engine.shards(), anchor, rule=Average(), weights=Weights(BETA), seed=(0,))
    return [merged.drift_before, merged.drift_after]


def _anchor(engine: Engine) -> ShardBuffer:
    shards = engine.shards()
    return ShardBuffer(shards, lambda shard: shard.data, open_store("cpu", shards, torch.float32, Path()))


def _reference() -> tuple[dict[str, Tensor], list[float]]:
    model = initial_model(ROWS[0]).double()
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    theta_o = {name: weight.detach().clone() for name, weight in weights.items()}
    decaying = [weight for weight in weights.values() if weight.dim() > 1]
    rest = [weight for weight in weights.values() if weight.dim() <= 1]
    groups = [{"params": decaying, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer, drifts = torch.optim.AdamW(groups, lr=LEARNING_RATE), []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, *batch(16 * step, GLOBAL_BATCH)).backward()
        optimizer.step()
        if (step + 1) % MERGE_EVERY == 0:
            drifts.append(_drift(weights, theta_o))
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.lerp_(theta_o[name], BETA)
            drifts.append(_drift(weights, theta_o))
    return {name: weight.detach() for name, weight in weights.items()}, drifts


def _drift(weights: dict[str, Tensor], theta_o: dict[str, Tensor]) -> float:
    return sum((weights[n] - theta_o[n]).square().sum().item() for n in weights) ** 0.5
