"""Trials of the engines: each attaches to a tiny model, in a process of its own.

``python -m sfa_hf.commands.engine_trials NAME`` tries one and prints nothing if it works.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from sfa_hf import engines

SECONDS = 120.0
"""Most of them goes into imports, on a machine that is busy."""


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
    DistributedDataParallel(layer)(torch.ones(1, 4)).sum().backward()
    _merge_once(layer, optimizer)


def _fsdp2() -> None:
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 - of this trial alone
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    layer, _ = _layer()
    fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
    _merge_once(layer, torch.optim.SGD(layer.parameters(), lr=0.1))


def _deepspeed() -> None:
    """Its import alone: a ZeRO engine compiles an op, which takes a minute the first time."""
    importlib.import_module("deepspeed")


TRIALS: dict[str, Callable[[], None]] = {
    "plain": _plain,
    "DDP": _ddp,
    "FSDP2": _fsdp2,
    "DeepSpeed ZeRO": _deepspeed,
}


def problems(names: Iterable[str]) -> dict[str, str | None]:
    """What is wrong with each engine, None where it works; all are tried at once."""
    command = [sys.executable, "-m", "sfa_hf.commands.engine_trials"]
    started = {
        name: subprocess.Popen(  # noqa: S603 - our own command
            [*command, name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for name in names
    }
    deadline = time.monotonic() + SECONDS
    return {name: _problem(trial, deadline) for name, trial in started.items()}


def _problem(trial: subprocess.Popen[str], deadline: float) -> str | None:
    try:
        _, said = trial.communicate(timeout=max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        trial.kill()
        trial.communicate()
        return f"no answer within {SECONDS:.0f} s"
    if trial.returncode == 0:
        return None
    lines = said.strip().splitlines() or [f"ended with exit code {trial.returncode}"]
    return lines[-1]


def _main(name: str) -> None:
    if name in ("DDP", "FSDP2"):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder, "store").as_uri()
            dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
            TRIALS[name]()
            dist.destroy_process_group()
    else:
        TRIALS[name]()


if __name__ == "__main__":
    _main(sys.argv[1])
