"""Trials of the engines: each merges a tiny model, in a process of its own with a time limit."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sfa_hf import engines

SECONDS = 60.0


def _merge_once(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    engine = engines.attach(model, optimizer)
    for shard in engine.shards():
        shard.data.mul_(0.5)
    engine.publish()


def _layer() -> tuple[nn.Module, torch.optim.Optimizer]:
    layer = nn.Linear(4, 4)
    return layer, torch.optim.SGD(layer.parameters(), lr=0.1)


def _plain() -> None:
    _merge_once(*_layer())


def _ddp() -> None:
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 - of this trial alone

    layer, optimizer = _layer()
    with _one_process():
        DistributedDataParallel(layer)(torch.ones(1, 4)).sum().backward()
        _merge_once(layer, optimizer)


def _fsdp2() -> None:
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 - of this trial alone
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    layer, _ = _layer()
    with _one_process():
        fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
        _merge_once(layer, torch.optim.SGD(layer.parameters(), lr=0.1))


def _deepspeed() -> None:
    """Its import alone: a ZeRO engine compiles an op, which takes a minute the first time."""
    importlib.import_module("deepspeed")


@contextmanager
def _one_process() -> Iterator[None]:
    """A gloo group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=0, world_size=1)
        yield
        dist.destroy_process_group()


TRIALS: dict[str, Callable[[], None]] = {
    "plain": _plain,
    "DDP": _ddp,
    "FSDP2": _fsdp2,
    "DeepSpeed ZeRO": _deepspeed,
}


def problem_with_engine(name: str) -> str | None:
    """Why an engine does not work here; None if it does."""
    # A fork has torch imported already; elsewhere than on Linux, libraries of the system do not survive one.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    answer, end = context.Pipe(duplex=False)
    trial = context.Process(target=_try, args=(name, end))
    trial.start()
    end.close()
    try:
        if not answer.poll(SECONDS):
            return f"no answer within {SECONDS:.0f} s"
        return answer.recv()
    except EOFError:
        trial.join()
        return f"its process ended with exit code {trial.exitcode}"
    finally:
        trial.kill()
        trial.join()


def _try(name: str, end: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        TRIALS[name]()
    except Exception as error:
        end.send(f"{type(error).__name__}: {error}")
    else:
        end.send(None)
