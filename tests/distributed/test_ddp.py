"""SFACallback under DistributedDataParallel: replicas stay equal, bit for bit, and as on one process."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.distributed as dist
from harness import gloo, run_ranks
from penalised import CLIP, RATE, STRENGTH, InOrder, reference
from tiny_training import BeforeAndAfter, Odd, Watch, arguments, rows, tiny_model, weights, worst_ulp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from sfa_hf import L2Callback, SFACallback, engines

SGD = {"optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": CLIP}
DDP = {"ddp_backend": "gloo", "ddp_find_unused_parameters": True, "per_device_train_batch_size": 2}
STEPS = 6


def digest(model: nn.Module) -> str:
    content = b"".join(p.detach().view(-1).view(torch.uint8).numpy().tobytes() for p in model.parameters())
    return hashlib.sha256(content).hexdigest()


def merging(folder: str, dtype: str, accumulation: int) -> dict:
    """Train with merges; report their worst error and a digest of the replica."""
    model = tiny_model().to(getattr(torch, dtype))
    before, after = Watch(), BeforeAndAfter()
    args = arguments(Path(folder), gradient_accumulation_steps=accumulation, **DDP)
    trainer = Trainer(model, args, train_dataset=rows(), callbacks=[before, SFACallback(0.3, 0.5), after])
    trainer.train()
    errors = [
        worst_ulp(before.at[step][name], theta_o, after.at[step][name], 0.3)
        for step in (4, 8)
        for name, theta_o in before.at[0].items()
    ]
    return {
        "engine": engines.attach(model, trainer.optimizer).name,
        "ulp": max(errors),
        "weights": digest(model),
        "merges": [{**e, "sfa/seconds": 0} for e in trainer.state.log_history if "sfa/merge" in e],
    }


def penalised(folder: str, accumulation: int) -> float:
    """Train with a penalty on the gradient; return the worst distance from float64 with it in the loss."""
    args = arguments(Path(folder), gradient_accumulation_steps=accumulation, max_steps=STEPS, **SGD, **DDP)
    model = Odd()
    InOrder(model, args, train_dataset=rows(), callbacks=[L2Callback(STRENGTH)]).train()
    expected = reference(Odd(), rows(), STEPS, batch=4 * accumulation)
    return max(
        (weights(model)[name] - value).abs().max().item() for name, value in expected.items() if value.numel()
    )


def static_graph() -> list[float]:
    with gloo():
        return gradients_of_a_static_graph()


def gradients_of_a_static_graph() -> list[float]:
    """Return what ``before_step`` saw of a gradient in the first three steps of a static-graph DDP model."""
    model = nn.Linear(1, 1, bias=False)
    wrapped = DistributedDataParallel(model, static_graph=True)
    seen: list[float] = []
    engine = engines.attach(model, torch.optim.SGD(model.parameters()))
    engine.before_step(lambda engine: seen.append(engine.gradient(engine.shards()[0]).item()))
    for _ in range(3):
        wrapped(torch.full((1, 1), float(dist.get_rank()))).sum().backward()
        model.zero_grad()
    return seen


def everything(folder: str) -> dict:
    return {
        "float32": merging(f"{folder}/a", "float32", accumulation=2),
        "bfloat16": merging(f"{folder}/b", "bfloat16", accumulation=1),
        "penalised": [penalised(f"{folder}/c", accumulation) for accumulation in (1, 2)],
    }


def test_two_processes(tmp_path: Path) -> None:
    first, second = run_ranks(everything, 2, folder=str(tmp_path))
    assert first["float32"]["engine"] == "ddp"
    assert first["float32"]["ulp"] <= 0.5 + 1e-6
    assert len(first["float32"]["merges"]) == 2
    for run in ("float32", "bfloat16"):
        assert first[run]["weights"] == second[run]["weights"]
        assert first[run]["merges"] == second[run]["merges"]
    assert max(first["penalised"] + second["penalised"]) < 1e-6


def test_a_static_graph_is_reduced_when_the_gradient_is_seen() -> None:
    assert run_ranks(static_graph, 2) == [[0.5, 0.5, 0.5]] * 2
