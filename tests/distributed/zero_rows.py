"""Rows of the table engine x precision x offload x persistence, and how each is trained for a few steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Row:
    """One set-up; ``accumulation_dtype`` = "fp32" with bf16 and stage 1 selects DeepSpeed's BF16_Optimizer."""

    stage: int
    precision: str
    optimizer: str = "torch"
    offload: bool = False
    offload_parameters: bool = False
    persistence: int = 0
    accumulation: int = 1
    clip: float = 0.0
    accumulation_dtype: str | None = None
    zero_init: bool = False
    round_robin: bool = False

    def label(self) -> str:
        return (
            f"zero{self.stage} {self.precision:4} {self.optimizer:8}"
            f" {'cpu' if self.offload else '-':3} {'cpu' if self.offload_parameters else '-':3}"
            f" {self.persistence if self.stage == 3 else '-':>7}"
        )


class Oddities(nn.Module):
    """Tied, frozen, odd-sized, scalar and zero-sized parameters in one small language model."""

    def __init__(self, empty: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 8)
        self.up = nn.Linear(8, 13)
        self.frozen = nn.Linear(13, 7)
        self.down = nn.Linear(7, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.gain = nn.Parameter(torch.ones(1))  # DeepSpeed's initial broadcast fails on shape ()
        if empty:
            self.nothing = nn.Parameter(torch.empty(0, 3))
        self.head = nn.Linear(8, 17, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        hidden = hidden + self.down(torch.tanh(self.frozen(torch.tanh(self.up(hidden)))))
        return self.head(self.norm(hidden) * self.gain)


def deepspeed_config(row: Row, lr: float) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": row.stage,
        "stage3_param_persistence_threshold": row.persistence,
        "round_robin_gradients": row.round_robin,
        "reduce_bucket_size": 1000,
    }
    if row.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if row.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": row.accumulation,
        "gradient_clipping": row.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if row.precision == "bf16":
        config["bf16"] = {"enabled": True}
    if row.precision == "fp16":
        config["fp16"] = {"enabled": True, "initial_scale_power": 8}
    if row.accumulation_dtype is not None:
        config["data_types"] = {"grad_accum_dtype": row.accumulation_dtype}
    return config


def base_optimizer(row: Row, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Two parameter groups: matrices with weight decay, the rest without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    dims = [len(getattr(parameter, "ds_shape", parameter.shape)) for parameter in trained]
    groups = [
        {"params": [p for p, dim in zip(trained, dims, strict=True) if dim >= 2], "weight_decay": 0.1},
        {"params": [p for p, dim in zip(trained, dims, strict=True) if dim < 2], "weight_decay": 0.0},
    ]
    if row.optimizer == "cpu_adam":
        return deepspeed.ops.adam.DeepSpeedCPUAdam(groups, lr=lr)
    if row.optimizer == "fused":
        return deepspeed.ops.adam.FusedAdam(groups, lr=lr)
    return torch.optim.AdamW(groups, lr=lr)


def start(row: Row, lr: float = 1e-2) -> Any:
    """A DeepSpeedEngine on the same initial weights in every row and on every rank."""
    torch.manual_seed(0)
    # DeepSpeed's ZeRO-3 fails to gather a parameter without elements.
    empty = row.stage < 3
    config = deepspeed_config(row, lr)
    if row.zero_init:
        with deepspeed.zero.Init(config_dict_or_path=config):
            model = Oddities(empty)
    else:
        model = Oddities(empty)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=base_optimizer(row, model, lr), config=copy.deepcopy(config)
    )
    return engine


def batches(step: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """The global batch of one step."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, 17, (size, 6), generator=generator)
    return tokens, torch.roll(tokens, 1, dims=1)


def loss_of(model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens).float().flatten(0, 1), labels.flatten())


def train_step(engine: Any, row: Row, step: int) -> None:
    """One optimizer step on this rank's part of the global batch."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for micro in range(row.accumulation):
        tokens, labels = batches(step * 16 + micro, 2 * world)
        own = slice(2 * rank, 2 * rank + 2)
        engine.backward(loss_of(engine, tokens[own], labels[own]))
        engine.step()


def full_masters(engine: Any, row: Row) -> dict[str, Tensor]:
    """Whole fp32 weights by name, read by DeepSpeed's own functions and not by the engine under test."""
    # With round_robin_gradients DeepSpeed's reader returns other parameters' weights: read the fp32 copies.
    found = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad and getattr(parameter, "ds_numel", parameter.numel()) > 0:
            full = None if row.round_robin else safe_get_full_fp32_param(parameter)
            found[name] = (_replicated_master(engine, parameter) if full is None else full).detach().clone().cpu()
    return found


def _replicated_master(engine: Any, parameter: nn.Parameter) -> Tensor:
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_groups"):
        for lows, highs in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            for low, high in zip(lows, highs, strict=True):
                if low is parameter:
                    return high
    if hasattr(optimizer, "fp32_groups_flat"):
        for lows, flat in zip(optimizer.fp16_groups, optimizer.fp32_groups_flat, strict=True):
            start = 0
            for low in lows:
                if low is parameter:
                    return flat[start : start + low.numel()].view(low.shape)
                start += low.numel()
    return parameter


def full_copies(engine: Any) -> dict[str, Tensor]:
    """Whole compute weights by name, in their own dtype."""
    found = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            found[name] = parameter.detach().clone().cpu()
    return found


def evaluate(engine: Any, step: int = 99) -> Tensor:
    """Logits of a forward pass in evaluation mode; leaves gathered parameters behind under ZeRO-3."""
    engine.module.eval()
    with torch.no_grad():
        logits = engine(batches(step)[0])
    engine.module.train()
    return logits
