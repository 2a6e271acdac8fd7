"""SFACallback on models sharded by ``fully_shard``: exact merges on uneven rows, seen by the next forward."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fishers import (
    DECAY,
    LAMBDA,
    PAST,
    PenaltyOf,
    answered,
    fisher_in_float64,
    largest_error,
    made_up_past,
    whole_fisher,
)
from harness import gloo, run_ranks
from penalised import CLIP, RATE, STRENGTH, l2, reference
from tiny_training import Odd, arguments, rows, tiny_model, worst_ulp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.distributed.tensor import Shard as Rows
from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from sfa_hf import EWCCallback, L2Callback, SFACallback, engines
from sfa_hf.fisher.estimate import FisherCallback

HALF_AN_ULP = 0.5 + 1e-6
BETA = 0.3
BATCH = 12  # rows of a global batch: divisible by 2, 3 and 4 ranks

ROWS = {
    "fp32": {},
    "fp32 gathered between forward and backward": {"reshard_after_forward": False},
    "bf16 compute": {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16)},
    "cpu offload": {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
    "anchor on disk": {"anchor_device": "disk"},
    "bf16 weights": {"dtype": torch.bfloat16},
}


def sharded(model: nn.Module, **policy: Any) -> nn.Module:
    policy = {"offload_policy": OffloadPolicy(), **policy}
    for layer in getattr(getattr(model, "model", None), "layers", ()):
        fully_shard(layer, **policy)
    return fully_shard(model, **policy)


def full(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Gather the sharded weights; ``parameters`` as they are when nothing is gathered."""
    return {name: p.detach().full_tensor().clone() for name, p in parameters.items() if p.requires_grad}


def local_batch(step: int) -> dict[str, Tensor]:
    ranks, rank = dist.get_world_size(), dist.get_rank()
    chosen = rows(count=8 * BATCH)[step * BATCH : (step + 1) * BATCH][rank::ranks]
    return {key: torch.stack([row[key] for row in chosen]) for key in chosen[0]}


class Steps:
    """A training loop of the Trainer's events, in its order, on a model that is already sharded."""

    def __init__(self, model: nn.Module, optimizer: Any, callbacks: list[TrainerCallback], args: Any) -> None:
        self.model, self.optimizer, self.args = model, optimizer, args
        self.parameters = dict(model.named_parameters())
        self.state, self.control = TrainerState(max_steps=args.max_steps), TrainerControl()
        self.handler = CallbackHandler([DefaultFlowCallback(), *callbacks], model, None, optimizer, None)
        self.handler.on_train_begin(args, self.state, self.control)

    def step(self) -> dict[str, Tensor]:
        """Take a step; return the full weights between the optimizer's step and the merge."""
        self.model(**local_batch(self.state.global_step))["loss"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.handler.on_pre_optimizer_step(self.args, self.state, self.control)
        self.optimizer.step()
        self.optimizer.zero_grad()
        before = full(self.parameters)
        with torch.no_grad():
            self.model(**local_batch(0))  # an evaluation, which leaves the root's parameters gathered
        self.state.global_step += 1
        self.handler.on_step_end(self.args, self.state, self.control)
        return before


def merging(
    folder: str, dtype: torch.dtype = torch.float32, anchor_device: str = "cpu", **policy: Any
) -> dict:
    model = sharded(tiny_model().to(dtype), **policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    callback = SFACallback(BETA, merge_every=2, anchor_device=anchor_device)
    steps = Steps(model, optimizer, [callback], arguments(Path(folder), max_steps=5))
    start, worst = full(steps.parameters), 0.0
    for _ in range(2):
        steps.step()
        before = steps.step()
        with torch.no_grad():
            seen = model(**local_batch(0))["loss"].item()
        after = full(steps.parameters)
        worst = max(worst, *(worst_ulp(before[name], start[name], after[name], BETA) for name in start))
        whole = copied(after, dtype, policy)
        with torch.no_grad():
            assert whole(**local_batch(0))["loss"].item() == pytest.approx(seen, rel=1e-6)
    optimizer.param_groups[0].update(lr=0.0, weight_decay=0.0)
    callback.beta = 0.0
    steps.step()
    unchanged = all(weight.equal(after[name]) for name, weight in full(steps.parameters).items())
    drift = sum((after[name].double() - start[name].double()).square().sum().item() for name in start) ** 0.5
    logged = [e for e in steps.state.log_history if e["step"] == 4]
    return {
        "ulp": worst,
        "unchanged": unchanged,
        "drift": logged[0]["sfa/drift_after"] / drift,
        "bytes": logged[0]["sfa/bytes"] / sum(4 * weight.numel() for weight in start.values()),
        "sum": sum(weight.double().sum().item() for weight in after.values()),
    }


def copied(state: dict[str, Tensor], dtype: torch.dtype, policy: dict[str, Any]) -> nn.Module:
    """Return an unsharded model with these weights, in the dtype that computes (buffers stay as they are)."""
    model = tiny_model().to(dtype)
    model.load_state_dict(state)
    if "mp_policy" in policy:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(policy["mp_policy"].param_dtype)
    return model


def odd() -> Odd:
    """Awkward parameters that ``fully_shard`` takes: no scalar, and no gradient of an empty one."""
    model = Odd([1.5])
    model.empty.requires_grad_(False)
    return model


def penalised(folder: str, **policy: Any) -> float:
    model = sharded(odd(), **policy)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    past = [(f"{folder}/past/{task}/fisher", f"{folder}/past/{task}") for task in range(PAST)]
    callbacks = [L2Callback(STRENGTH), EWCCallback(past, LAMBDA, decay=DECAY)]
    steps = Steps(model, optimizer, callbacks, arguments(Path(), max_steps=5))
    for _ in range(5):
        steps.step()
    ewc, found = PenaltyOf("online", odd()), full(steps.parameters)
    expected = reference(
        odd(), rows(8 * BATCH), 5, BATCH, lambda now, start: l2(now, start) + ewc(now, start)
    )
    return max((found[name] - value).abs().max().item() for name, value in expected.items())


def fisher(folder: str) -> None:
    """Save the Fisher of rows that all ranks take alike."""
    model = sharded(tiny_model())
    callback = FisherCallback(len(answered()), "a")
    steps = Steps(
        model, torch.optim.SGD(model.parameters(), lr=0.0), [callback], arguments(Path(), max_steps=9)
    )
    for row in answered():
        tokens, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        nn.functional.cross_entropy(
            model(input_ids=tokens).logits[0, :-1], labels[1:], reduction="sum"
        ).backward()
        steps.optimizer.zero_grad()
    callback.save(Path(folder, "fisher"), {})


def slices(folder: str) -> dict[str, list[list[int]]]:
    """Where this rank's shards lie, and whether an anchor read from a folder arrives in them."""
    model = sharded(tiny_model())
    optimizer = torch.optim.AdamW(model.parameters())
    args = arguments(Path(folder), max_steps=1)
    steps = Steps(model, optimizer, [SFACallback(1.0, 1.0, anchor=f"{folder}/anchor")], args)
    steps.step()
    expected = dict(tiny_model(seed=5).named_parameters())
    assert all(weight.equal(expected[name]) for name, weight in full(steps.parameters).items())
    engine = engines.attach(model, optimizer)
    for shard in engine.shards():
        flat = expected[shard.name].detach().reshape(-1)
        assert shard.data.equal(flat[shard.offset : shard.offset + shard.data.numel()])
        assert shard.shape == expected[shard.name].shape
        moments = engine.optimizer_state("exp_avg", shard)
        assert moments.shape == shard.data.shape
    return {shard.name: [shard.offset, shard.data.numel()] for shard in engine.shards()}


def everything(folder: str) -> dict:
    with gloo():
        return {
            "merging": {name: merging(folder, **copy.copy(row)) for name, row in ROWS.items()},
            "penalised": [
                penalised(folder),
                penalised(folder, offload_policy=CPUOffloadPolicy(pin_memory=False)),
            ],
            "fisher": fisher(folder),
            "slices": slices(folder),
        }


def hybrid(folder: str) -> dict:
    with gloo():
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        return {"merging": merging(folder, mesh=mesh), "penalised": penalised(folder, mesh=mesh)}


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_merges_gradients_and_slices(tmp_path: Path, ranks: int) -> None:
    tiny_model(seed=5).save_pretrained(tmp_path / "anchor")
    made_up_past(tmp_path / "past", odd())
    results = run_ranks(everything, ranks, folder=str(tmp_path))
    for row, merged in results[0]["merging"].items():
        if row != "bf16 weights":  # rounded to bfloat16 at random
            assert merged["ulp"] <= HALF_AN_ULP, row
        assert merged["unchanged"], row
        assert merged["drift"] == pytest.approx(1, rel=1e-6), row
        assert merged["bytes"] == 1, row
    assert all(result["merging"] == results[0]["merging"] for result in results)
    assert max(error for result in results for error in result["penalised"]) < 2e-6
    expected = fisher_in_float64(tiny_model(), answered())
    found = whole_fisher(tmp_path / "fisher", {name: value.shape for name, value in expected.items()})
    assert largest_error(found, expected) < 1e-5
    covered = {name: sum(result["slices"][name][1] for result in results) for name in results[0]["slices"]}
    assert covered == {name: weight.numel() for name, weight in tiny_model().named_parameters()}


@pytest.mark.slow
def test_hybrid_shards_on_four_processes(tmp_path: Path) -> None:
    made_up_past(tmp_path / "past", odd())
    results = run_ranks(hybrid, 4, folder=str(tmp_path))
    for result in results:
        assert result == results[0]
        assert result["merging"]["ulp"] <= HALF_AN_ULP
        assert result["merging"]["unchanged"]
        assert result["merging"]["drift"] == pytest.approx(1, rel=1e-6)
        assert result["penalised"] < 2e-6


def refusals() -> list[str]:
    with gloo():
        return [refusal(placement) for placement in (Rows(1), Replicate())]


def refusal(placement: Any) -> str:
    model, mesh = nn.Linear(4, 4, bias=False), init_device_mesh("cpu", (2,))
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [placement]))
    with pytest.raises(NotImplementedError) as error:
        engines.attach(model, torch.optim.SGD(model.parameters()))
    return str(error.value)


def test_other_placements_are_refused_by_name() -> None:
    for columns, replicated in run_ranks(refusals, 2):
        assert "weight is placed as (Shard(dim=1),)" in columns
        assert "weight is placed as (Replicate(),)" in replicated
        assert "supported: one process" in columns
