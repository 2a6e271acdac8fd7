r"""Adapters under ZeRO, FSDP2 and DDP: gathered, averaged as updates, and written to every copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from effective import effective, error
from harness import gloo, run_ranks
from tiny_training import arguments, rows, tiny_model
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerControl, TrainerState
from zero_rows import Row, deepspeed_config, full_copies, quiet_deepspeed

from sfa_hf import SFACallback

peft = pytest.importorskip("peft")

BETA = 0.3
KINDS = {
    "LoRA": {},
    "PiSSA": {"init_lora_weights": "pissa"},
    "DoRA": {"use_dora": True},
    "DoRA from an adapter": {"use_dora": True, "init_lora_weights": False, "r": 24},
}
ZERO = [
    (Row(2, "bf16"), "LoRA"),
    (Row(2, "bf16"), "PiSSA"),
    (Row(3, "bf16"), "PiSSA"),
    (Row(3, "bf16", persistence=10**6), "PiSSA"),
    (Row(3, "fp32"), "DoRA"),
    (Row(3, "fp32", persistence=10**6), "DoRA from an adapter"),
]
"""Each row of ZeRO with one kind of adapter."""


def adapted(kind: str) -> Any:
    torch.manual_seed(0)
    options = {"r": 3, "target_modules": ["q_proj", "down_proj"], **KINDS[kind]}
    return peft.get_peft_model(tiny_model(), peft.LoraConfig(**options))


def weights_of(kind: str, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Effective weights of a whole model with these adapters."""
    whole = adapted(kind)
    parameters = dict(whole.named_parameters())
    with torch.no_grad():
        for name, values in trained.items():
            parameters[name].copy_(values)
    return effective(whole)


def expected_error(kind: str, start: dict, before: dict, after: dict) -> float:
    """Error of the merge against the average, or for PiSSA against its best approximation."""
    weights = [weights_of(kind, each) for each in (before, start, after)]
    if kind != "PiSSA":
        return error(*weights, BETA)
    base = {
        n.replace(".base_layer", "").removeprefix("base_model.model."): p
        for n, p in adapted(kind).named_parameters()
    }
    worst, (theta, theta_o, merged) = 0.0, weights
    for name in theta:
        if not theta[name].equal(theta_o[name]):
            own = base[name].detach().double()
            u, s, vh = torch.linalg.svd(
                (1 - BETA) * theta[name] + BETA * theta_o[name] - own, full_matrices=False
            )
            best = own + (u[:, :3] * s[:3]) @ vh[:3]
            worst = max(worst, float((merged[name] - best).norm() / (theta[name] - theta_o[name]).norm()))
    return worst


def trained(model: nn.Module, read: Any) -> dict[str, Tensor]:
    return {n: read(p).detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def batch(step: int) -> dict[str, Tensor]:
    chosen = rows(64)[4 * step :][dist.get_rank() : 4 : dist.get_world_size()]
    return {key: torch.stack([row[key] for row in chosen]) for key in chosen[0]}


class Run:
    """Two steps with a merge after the second, as the Trainer calls the callback."""

    def __init__(self, folder: str, model: Any, optimizer: Any, read: Any) -> None:
        self.model, self.optimizer, self.read = model, optimizer, read
        self.args, self.control = arguments(Path(folder)), TrainerControl()
        self.state, self.callback = TrainerState(max_steps=3), SFACallback(BETA, merge_every=2)
        self._call("on_train_begin")

    def steps(self, take: Any) -> tuple[dict, dict, dict]:
        start = trained(self.model, self.read)
        for step in range(2):
            take(step)
            before = trained(self.model, self.read)
            self.state.global_step += 1
            self._call("on_step_end")
        return start, before, trained(self.model, self.read)

    def _call(self, event: str) -> None:
        getattr(self.callback, event)(
            self.args, self.state, self.control, model=self.model, optimizer=self.optimizer
        )


def zero_row(folder: str, row: Row, kind: str) -> dict[str, Any]:
    model = adapted(kind)
    parameters = [p for p in model.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.AdamW(parameters, lr=3e-2), config=deepspeed_config(row)
    )
    run = Run(folder, engine.module, engine.optimizer, safe_get_full_fp32_param)

    def take(step: int) -> None:
        engine.backward(engine(**batch(step)).loss)
        engine.step()

    start, before, after = run.steps(take)
    copies = full_copies(engine)
    return {
        "error": expected_error(kind, start, before, after),
        "stale": [n for n, w in after.items() if not copies[n].equal(w.to(copies[n].dtype))],
        "discarded": run.state.log_history[-1]["sfa/lora_discarded"],
    }


def fsdp_row(folder: str, kind: str) -> dict[str, Any]:
    model = adapted(kind)
    for layer in model.base_model.model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return _plain(folder, model, model, kind, lambda p: p.full_tensor())


def ddp_row(folder: str, kind: str) -> dict[str, Any]:
    model = adapted(kind)
    return _plain(folder, DistributedDataParallel(model), model, kind, lambda p: p)


def _plain(folder: str, wrapped: nn.Module, model: nn.Module, kind: str, read: Any) -> dict[str, Any]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    run = Run(folder, model, optimizer, read)

    def take(step: int) -> None:
        wrapped(**batch(step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    start, before, after = run.steps(take)
    with torch.no_grad():
        seen = wrapped(**batch(0)).loss.item()
        whole = adapted(kind)
        parameters = dict(whole.named_parameters())
        for name, values in after.items():
            parameters[name].copy_(values)
        wanted = whole(**batch(0)).loss.item()
    return {
        "error": expected_error(kind, start, before, after),
        "stale": [] if abs(seen - wanted) < 1e-5 else [f"loss {seen}, not {wanted}"],
        "discarded": run.state.log_history[-1]["sfa/lora_discarded"],
    }


def rows_of_zero(folder: str, chosen: list[int]) -> list[dict[str, Any]]:
    with quiet_deepspeed():
        return [zero_row(folder, *ZERO[index]) for index in chosen]


def plain_rows(folder: str) -> list[dict[str, Any]]:
    with gloo():
        sharded = [fsdp_row(folder, kind) for kind in KINDS]
        return sharded + [ddp_row(folder, kind) for kind in ("PiSSA", "DoRA")]


FAST = [1, 3]
"""Rows of ZeRO that are run in every test run."""


@pytest.mark.parametrize(
    "chosen", [FAST, pytest.param([i for i in range(len(ZERO)) if i not in FAST], marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_under_zero_updates_are_averaged_in_every_copy(chosen: list[int], tmp_path: Path) -> None:
    by_rank = run_ranks(rows_of_zero, 2, folder=str(tmp_path), chosen=chosen)
    check(by_rank, [ZERO[index][1] for index in chosen])


def test_under_fsdp2_and_ddp_updates_are_averaged(tmp_path: Path) -> None:
    check(run_ranks(plain_rows, 2, folder=str(tmp_path)), [*KINDS, "PiSSA", "DoRA"])


def check(by_rank: list[list[dict[str, Any]]], kinds: list[str]) -> None:
    assert by_rank[0] == by_rank[1]
    for kind, found in zip(kinds, by_rank[0], strict=True):
        assert found["error"] < 3e-5, (kind, found)
        assert found["stale"] == [], (kind, found)
        assert (found["discarded"] > 0) == (kind == "PiSSA"), (kind, found)
