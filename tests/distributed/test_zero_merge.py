"""A merge under every row of engine x precision x offload x persistence, on real DeepSpeed processes.

For each row: the full fp32 weights are read before and after by DeepSpeed's own functions, and the merge
repeated outside in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import run_ranks
from torch import Tensor
from zero_rows import (
    COMPILED,
    DTYPES,
    Row,
    full_copies,
    full_masters,
    gathered_copies,
    initial_model,
    logits_of,
    quiet_deepspeed,
    start,
    train_step,
)

from sfa_hf.anchor.merge import Merged, merge
from sfa_hf.anchor.weighting import Weights
from sfa_hf.engines import Engine, Shard, attach
from sfa_hf.rules import Average
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.store import open_store

BETA = 0.3
STAGES = (0, 1, 2, 3)

PRECISIONS = [Row(stage, precision) for stage in STAGES for precision in DTYPES]
PERSISTENT = [Row(3, precision, persistence=10**6) for precision in DTYPES]
OFFLOADED = [
    *(
        Row(stage, precision, "cpu_adam", offload=True)
        for stage in (1, 2, 3)
        for precision in ("bf16", "fp16")
    ),
    *(Row(stage, "fp32", offload=True) for stage in (1, 2, 3)),
    *(
        Row(3, precision, "adamw", offload=True, offload_parameters=True, persistence=persistence)
        for precision in ("bf16", "fp32")
        for persistence in (0, 10**6)
    ),
]
VARIED = [
    Row(0, "bf16", "fused", clip=0.1),
    Row(1, "bf16", sum_in_fp32=True, accumulation=2, clip=0.1),
    Row(2, "bf16", sum_in_fp32=True, accumulation=2, clip=0.1),
    Row(2, "fp32", round_robin=True),
    Row(3, "bf16", "fused", accumulation=2, clip=0.1),
    Row(3, "bf16", zero_init=True),
    Row(3, "bf16", "cpu_adam", zero_init=True, offload=True, offload_parameters=True, accumulation=2),
]
TABLE = [*PRECISIONS, *PERSISTENT, *OFFLOADED, *VARIED]
FAST = [row for row in TABLE if row.optimizer not in COMPILED]
UNEVEN = [
    *(Row(stage, "bf16") for stage in STAGES),
    *PERSISTENT[1:2],
    Row(2, "fp32", round_robin=True),
    VARIED[1],
]


@pytest.mark.parametrize(
    ("ranks", "rows"),
    [
        (2, FAST),
        pytest.param(2, [row for row in TABLE if row not in FAST], marks=pytest.mark.slow),
        pytest.param(3, UNEVEN, marks=pytest.mark.slow),
    ],
    ids=["2-ranks", "2-ranks-compiled", "3-ranks"],
)
def test_a_merge_is_exact_and_in_every_copy(
    ranks: int, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    by_rank = run_ranks(merge_in_rows, ranks, rows=[row.as_json() for row in rows])
    found = {row: [of_rank[index] for of_rank in by_rank] for index, row in enumerate(rows)}
    with capsys.disabled():
        print("\n" + _table(found, ranks))
    for row, of_ranks in found.items():
        for finding in of_ranks:
            assert finding["engine"] == f"zero{row.stage}", row
            assert finding["ulps"] <= 1, (row, finding)
            assert finding["stale"] == [], (row, finding)
            assert finding["gathered_as_by_a_step"], (row, finding)
            assert finding["forward_agrees"], (row, finding)
            assert finding["changed_by_idle_step"] == [], (row, finding)
            assert finding["misread_moments"] == [], (row, finding)
            assert finding["drift_error"] < 1e-6, (row, finding)


def _table(found: dict[Row, list[dict[str, Any]]], ranks: int) -> str:
    head = f"{ranks} ranks: engine, precision, optimizer, offload, persistence"
    lines = [f"{head:94}worst error / ulp"]
    for row, of_ranks in found.items():
        lines.append(f"{row.label():94}{max(finding['ulps'] for finding in of_ranks):.2f}")
    return "\n".join(lines)


def merge_in_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with quiet_deepspeed():
        return [_merge_in(Row(**fields)) for fields in rows]


def _merge_in(row: Row) -> dict[str, Any]:
    deepspeed_engine = start(row)
    engine = attach(deepspeed_engine.module, deepspeed_engine.optimizer)
    for step in range(2):
        train_step(deepspeed_engine, row, step)
    gathered_by_step = list(gathered_copies(deepspeed_engine))
    logits_of(deepspeed_engine)
    before = full_masters(deepspeed_engine, row)
    theta_o = _anchor_of(before)
    merged = _merge(engine, theta_o)
    gathered = gathered_copies(deepspeed_engine)
    after, copies = full_masters(deepspeed_engine, row), full_copies(deepspeed_engine)
    return {
        "engine": engine.name,
        "ulps": max(_ulps_off(before[name], theta_o[name], after[name]) for name in before),
        "stale": _stale(after, gathered, copies, DTYPES[row.precision]),
        "gathered_as_by_a_step": list(gathered) == gathered_by_step,
        "forward_agrees": torch.equal(logits_of(deepspeed_engine), _logits_with(copies, row)),
        "drift_error": _drift_error(merged, before, theta_o, after),
        "misread_moments": _misread_moments(engine),
        "changed_by_idle_step": _changed_by_idle_step(deepspeed_engine, row, after, copies),
    }


def _anchor_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: w + torch.empty_like(w).normal_(std=0.1, generator=generator) for n, w in weights.items()}


def _merge(engine: Engine, theta_o: dict[str, Tensor]) -> Merged:
    def read(shard: Shard) -> Tensor:
        return theta_o[shard.name].flatten()[shard.offset : shard.offset + shard.data.numel()]

    shards = engine.shards()
    anchor = ShardBuffer(shards, read, open_store("cpu", shards, torch.float32, Path()))
    return merge(engine, shards, anchor, rule=Average(), weights=Weights(BETA), seed=(0,))


def _ulps_off(before: Tensor, theta_o: Tensor, after: Tensor) -> float:
    """Largest error in ulp of fp32 at the larger operand."""
    exact = (1 - BETA) * before.double() + BETA * theta_o.double()
    largest = torch.maximum(before.abs(), theta_o.abs())
    ulp = torch.nextafter(largest, torch.tensor(torch.inf)) - largest
    return ((after.double() - exact).abs() / ulp.double()).max().item()


def _stale(
    masters: dict[str, Tensor], gathered: dict[str, Tensor], copies: dict[str, Tensor], dtype: torch.dtype
) -> list[str]:
    return [
        name
        for name, master in masters.items()
        for copy in (gathered.get(name, copies[name]), copies[name])
        if copy.dtype != dtype or not torch.equal(copy, master.to(dtype))
    ]


def _logits_with(copies: dict[str, Tensor], row: Row) -> Tensor:
    model = initial_model(row).to(DTYPES[row.precision])
    model.load_state_dict(copies, strict=False)
    return logits_of(model)


def _drift_error(
    merged: Merged, before: dict[str, Tensor], theta_o: dict[str, Tensor], after: dict[str, Tensor]
) -> float:
    def drift(weights: dict[str, Tensor]) -> float:
        return sum((weights[n].double() - theta_o[n].double()).square().sum().item() for n in weights) ** 0.5

    return max(abs(merged.drift_before / drift(before) - 1), abs(merged.drift_after / drift(after) - 1))


def _misread_moments(engine: Engine) -> list[str]:
    """Shards whose second moment is missing, cut wrongly or never touched by the two steps."""
    moments = {shard.name: (shard, engine.optimizer_state("exp_avg_sq", shard)) for shard in engine.shards()}
    return [
        name
        for name, (shard, moment) in moments.items()
        if moment is None or moment.shape != shard.data.shape or not moment.any()
    ]


def _changed_by_idle_step(
    engine: Any, row: Row, masters: dict[str, Tensor], copies: dict[str, Tensor]
) -> list[str]:
    """Names that a step with learning rate 0 changes in a single bit."""
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    train_step(engine, row, step=2)
    now = {**full_copies(engine), **{f"master {n}": w for n, w in full_masters(engine, row).items()}}
    then = {**copies, **{f"master {name}": weight for name, weight in masters.items()}}
    return [name for name, weight in then.items() if not torch.equal(now[name], weight)]
