"""Merge a sharded model with an anchor: shard by shard, and the two ways people use today.

    python benchmarks/merge_engines.py [--million 100] [--ranks 2] [--repeats 5]

Starts its own processes: one per GPU, or two on the CPU. Prints, per ZeRO stage (bf16) and way, the seconds
of a merge (median of the repeats, slowest rank) and their ratio to the engine's; collectives and the bytes
of their results on a rank; extra peak memory of the rank that needs most; and whether the merge was still
there after the next optimizer step (with learning rate 0, which by itself changes nothing).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import logger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.weighting import Weights
from sfa_hf.distributed import clean_end
from sfa_hf.engines import Shard, attach
from sfa_hf.rules import Average
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.store import open_store

BETA = 0.3
MIB = 2**20


@dataclass
class Cost:
    """What one merge took, on the rank that needed most."""

    seconds: float
    collectives: int
    payload: int
    peak: int
    survived: bool


class Collectives(TorchDispatchMode):
    """Counts c10d calls and the bytes that each leaves on this rank."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.payload = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d" and "barrier" not in func.__name__:
            self.calls += 1
            results = [leaf for leaf in tree_leaves(args[0]) if isinstance(leaf, Tensor)]
            self.payload += sum(result.nbytes for result in results)
        return func(*args, **(kwargs or {}))


# --- the three ways ---------------------------------------------------------------------------------------


def engine_merge(engine: Any, theta_o: dict[str, Tensor]) -> Callable[[], None]:
    """Shard by shard through sfa_hf, drift included."""
    attached = attach(engine.module, engine.optimizer)

    def read(shard: Shard) -> Tensor:
        return theta_o[shard.name].view(-1)[shard.offset : shard.offset + shard.data.numel()]

    shards = attached.shards()
    kept = ShardBuffer(shards, read, open_store("cpu", shards, torch.float32, Path()))

    def run() -> None:
        merge(attached, shards, kept, rule=Average(), weights=Weights(BETA), seed=(0,))

    return run


def gathered_edit(engine: Any, theta_o: dict[str, Tensor]) -> Callable[[], None]:
    """``GatheredParameters(modifier_rank=0)`` and an edit in place, a parameter at a time.

    Under ZeRO-2 nothing is partitioned, and every rank edits its copy.
    """

    def run() -> None:
        for name, parameter in engine.module.named_parameters():
            partitioned = hasattr(parameter, "ds_id")
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=partitioned):
                if not partitioned or dist.get_rank() == 0:
                    parameter.data.lerp_(theta_o[name].to(parameter.device, parameter.dtype), BETA)

    return run


def state_dict_round_trip(engine: Any, theta_o: dict[str, Tensor]) -> Callable[[], None]:
    """The full state_dict on rank 0, merged there in fp32, and loaded back on every rank."""

    def run() -> None:
        whole = _full_state_dict(engine)
        if dist.get_rank() == 0:
            for name, weight in whole.items():
                whole[name] = weight.float().lerp_(theta_o[name].to(weight.device), BETA).to(weight.dtype)
        _load_from_rank_0(engine, whole)

    return run


def _full_state_dict(engine: Any) -> dict[str, Tensor]:
    if engine.zero_optimization_stage() == 3:
        return engine._zero3_consolidated_16bit_state_dict() or {}
    return {name: parameter.detach().clone() for name, parameter in engine.module.named_parameters()}


def _load_from_rank_0(engine: Any, whole: dict[str, Tensor]) -> None:
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters(
            [parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_id")
        ):
            if dist.get_rank() == 0:
                parameter.data.copy_(whole[name])
            if not hasattr(parameter, "ds_id"):
                dist.broadcast(parameter.data, 0)


WAYS = {
    "sfa_hf, shard by shard": engine_merge,
    "GatheredParameters, in place": gathered_edit,
    "full state_dict and back": state_dict_round_trip,
}


# --- measuring ---------------------------------------------------------------------------------------------


def measure(stage: int, way: str, args: argparse.Namespace) -> Cost:
    """Train one step, merge ``args.repeats`` times for the clock, once for the rest."""
    engine = start(stage, args.million)
    step(engine)
    theta_o = {name: torch.zeros(weight.shape) for name, weight in shapes(engine).items()}
    run = WAYS[way](engine, theta_o)
    seconds = [_timed(run) for _ in range(args.repeats)]
    before = norm(engine)
    with Collectives() as collectives, peak_memory() as peak:
        run()
    merged = norm(engine)
    step(engine)
    cost = Cost(
        statistics.median(seconds),
        collectives.calls,
        collectives.payload,
        int(_over_ranks(float(peak[0]))),
        # Towards an anchor of zeros a merge shrinks the weights: did they stay as small?
        abs(norm(engine) - merged) < 0.5 * abs(before - merged),
    )
    engine.destroy()
    return cost


def _timed(run: Callable[[], None]) -> float:
    _synchronise()
    begin = time.perf_counter()
    run()
    _synchronise()
    return _over_ranks(time.perf_counter() - begin)


def _synchronise() -> None:
    get_accelerator().synchronize()
    dist.barrier()


def _over_ranks(value: float) -> float:
    largest = torch.tensor([value], dtype=torch.float64, device=get_accelerator().current_device_name())
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.item()


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Bytes above what was held before: device memory on a GPU, resident memory on a CPU."""
    gc.collect()
    found = [0]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        yield found
        found[0] = torch.cuda.max_memory_allocated() - held
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak to what is resident now
        held = _status("VmRSS")
        yield found
        found[0] = _status("VmHWM") - held


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


# --- the model in training ----------------------------------------------------------------------------------


def start(stage: int, million: int) -> Any:
    """A Llama of about that many million weights under DeepSpeed, AdamW with learning rate 0."""
    # 12 layers of 12 h^2 weights and two embeddings of 16000 h; h in heads of 64.
    wanted = ((32000**2 + 4 * 144 * million * 1e6) ** 0.5 - 32000) / (2 * 144)
    hidden = 64 * max(1, round(wanted / 64))
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=12,
        num_attention_heads=hidden // 64,
        vocab_size=16000,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": stage, "reduce_bucket_size": 2**24},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        },
    )
    return engine


def shapes(engine: Any) -> dict[str, Any]:
    return {
        n: torch.empty(getattr(p, "ds_shape", p.shape), device="meta")
        for n, p in engine.module.named_parameters()
    }


def step(engine: Any) -> None:
    tokens = torch.arange(8, device=engine.device).unsqueeze(0)
    engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    engine.step()


def norm(engine: Any) -> float:
    """Norm of the weights that compute."""
    squares = 0.0
    for parameter in engine.module.parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            squares += parameter.detach().float().square().sum().item()
    return squares**0.5


# --- the command line ---------------------------------------------------------------------------------------


def main() -> int:
    args = _parse()
    if "RANK" not in os.environ:
        return _launch(args.ranks)
    warnings.simplefilter("ignore", FutureWarning)
    logger.setLevel(logging.ERROR)
    deepspeed.init_distributed(verbose=False)
    with clean_end():
        for stage in (2, 3):
            costs = {way: measure(stage, way, args) for way in WAYS}
            if dist.get_rank() == 0:
                print(table(stage, costs), flush=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--million", type=int, default=100, help="million parameters, about")
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count() or 2)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def _launch(ranks: int) -> int:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [*launcher, __file__, *sys.argv[1:]]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - itself, as launched


def table(stage: int, costs: dict[str, Cost]) -> str:
    own = next(iter(costs.values())).seconds
    lines = [
        f"\nZeRO-{stage}, bf16, {dist.get_world_size()} ranks, {get_accelerator().device_name()}",
        f"{'':30}{'seconds':>9}{'ratio':>8}{'collectives':>13}{'MiB moved':>11}{'peak MiB':>10}  next step",
    ]
    for way, cost in costs.items():
        kept = "keeps it" if cost.survived else "reverts it"
        lines.append(
            f"{way:30}{cost.seconds:9.3f}{cost.seconds / own:8.1f}{cost.collectives:13}"
            f"{cost.payload / MIB:11.0f}{cost.peak / MIB:10.0f}  {kept}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
