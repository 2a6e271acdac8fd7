"""The same scores on 1, 2 and 3 processes, on every engine, and training that goes on unharmed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from distributed.harness import gloo, run_ranks
from small_models import SCORINGS, model, rows, task, tokenizer
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sfa_hf.evaluation import EvaluationOptions, evaluate_task
from sfa_hf.tasks import Encoding, collator, encode

Step = Callable[[int], None]
BATCH_SIZE = 5  # 23 rows are 5 batches: an uneven share for 2 and for 3 processes


def plain(net: nn.Module) -> tuple[nn.Module, Step]:
    return net, torch_step(net, net)


def ddp(net: nn.Module) -> tuple[nn.Module, Step]:
    wrapped = DistributedDataParallel(net)
    return wrapped, torch_step(wrapped, net)


def fsdp2(net: nn.Module) -> tuple[nn.Module, Step]:
    for layer in net.model.layers:
        fully_shard(layer)
    fully_shard(net)
    return net, torch_step(net, net)


def zero3(net: nn.Module) -> tuple[nn.Module, Step]:
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=net, optimizer=optimizer, config=config)

    def step(number: int) -> None:
        engine.backward(engine(**batch(number)).loss)
        engine.step()

    return engine, step


ENGINES = {"plain": plain, "ddp": ddp, "zero3": zero3, "fsdp2": fsdp2}


def torch_step(forward: nn.Module, net: nn.Module) -> Step:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)

    def step(number: int) -> None:
        forward(**batch(number)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def batch(number: int) -> dict[str, Tensor]:
    data, _ = encode(rows(), tokenizer(), Encoding())
    return collator(tokenizer())([data[2 * number], data[2 * number + 1]])


def scores(net: nn.Module, folder: str, name: str) -> dict[str, Any]:
    found = {}
    own = Path(folder, f"rank-{os.environ.get('RANK', '0')}")
    own.mkdir(exist_ok=True)
    for kind, scoring in SCORINGS.items():
        path = Path(folder, name, f"{kind}.jsonl")
        options = EvaluationOptions(batch_size=BATCH_SIZE)
        small = task(own, scoring)
        found[kind] = asdict(evaluate_task(net, tokenizer(), small, Encoding(), options, records_path=path))
    return found


def total(net: nn.Module) -> float:
    """A number that changes if any weight does."""
    with deepspeed.zero.GatheredParameters(list(net.parameters())):
        whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in net.parameters()]
        return sum(weight.detach().double().abs().sum().item() for weight in whole)


def score_live(folder: str, engines: list[str]) -> dict[str, Any]:
    """On each engine: the scores of the untrained model; and weights trained with and without evaluation."""
    found = {}
    with gloo():
        world = torch.distributed.get_world_size()
        for name in engines:
            net, step = ENGINES[name](model())
            first = scores(net, folder, f"{name}-{world}")
            found[name] = {"scores": first, "with": trained(net, step, folder), "without": None}
            net, step = ENGINES[name](model())
            found[name]["without"] = trained(net, step, None)
    return found


def trained(net: nn.Module, step: Step, folder: str | None) -> float:
    net.train()
    for number in range(3):
        step(number)
        if folder is not None:
            scores(net, folder, "during")
    return total(net)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shared")
    return folder, scores(model(), str(folder), "alone")


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_scores_and_records_do_not_depend_on_how_many_processes_share_the_rows(
    ranks: int, alone: tuple[Path, dict[str, Any]]
) -> None:
    folder, expected = alone
    engines = ["ddp", "zero3", "fsdp2"]
    found = run_ranks(score_live, ranks, folder=str(folder), engines=engines)
    for of_rank in found:
        for engine in engines:
            assert of_rank[engine]["scores"] == expected
            assert of_rank[engine]["with"] == of_rank[engine]["without"], engine
    for engine in engines:
        for kind in SCORINGS:
            theirs = (folder / f"{engine}-{ranks}" / f"{kind}.jsonl").read_bytes()
            assert theirs == (folder / "alone" / f"{kind}.jsonl").read_bytes(), (engine, kind)
