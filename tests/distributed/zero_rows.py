"""Rows of the table engine x precision x offload x persistence, and how each is trained for a few steps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import logger, safe_get_full_fp32_param
from harness import gloo
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
VOCABULARY = 17


@dataclass(frozen=True)
class Row:
    """One set-up.

    ``sum_in_fp32`` accumulates 16-bit gradients in fp32, under stage 1 by another optimizer class of
    DeepSpeed's; ``extra`` goes into the configuration's ZeRO section as it is.
    """

    stage: int
    precision: str
    optimizer: str = "adamw"
    offload: bool = False
    offload_parameters: bool = False
    persistence: int = 0
    accumulation: int = 1
    clip: float = 0.0
    sum_in_fp32: bool = False
    zero_init: bool = False
    round_robin: bool = False
    scale_power: int = 8

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def label(self) -> str:
        offload = "params" if self.offload_parameters else "optimizer" if self.offload else "-"
        persistence = str(self.persistence) if self.stage == 3 else "-"
        details = [f"accumulation {self.accumulation}"] * (self.accumulation > 1)
        details += [f"clip {self.clip}"] * (self.clip > 0)
        details += [name for name in ("sum_in_fp32", "zero_init", "round_robin") if getattr(self, name)]
        return (
            f"zero{self.stage}  {self.precision}  {self.optimizer:8}  {offload:9}"
            f"  {persistence:7}  {', '.join(details):40}"
        )


class Oddities(nn.Module):
    """A small language model with tied, frozen, odd-sized, one-element and zero-sized parameters.

    Args:
        empty: with the zero-sized one, which DeepSpeed's ZeRO-3 fails to gather.
    """

    def __init__(self, empty: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.up = nn.Linear(8, 13)
        self.frozen = nn.Linear(13, 7)
        self.down = nn.Linear(7, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.gain = nn.Parameter(torch.ones(1))  # DeepSpeed's initial broadcast fails on shape ()
        if empty:
            self.nothing = nn.Parameter(torch.empty(0, 3))
        self.head = nn.Linear(8, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        hidden = hidden + self.down(torch.tanh(self.frozen(torch.tanh(self.up(hidden)))))
        return self.head(self.norm(hidden) * self.gain)


def initial_model(row: Row) -> Oddities:
    torch.manual_seed(0)
    return Oddities(empty=row.stage < 3)


def deepspeed_config(row: Row) -> dict[str, Any]:
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
        config["fp16"] = {"enabled": True, "initial_scale_power": row.scale_power, "hysteresis": 1}
    if row.sum_in_fp32:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def start(row: Row, lr: float = 1e-2, extra: dict[str, Any] | None = None) -> Any:
    """Return a DeepSpeedEngine on the same initial weights in every row and on every rank.

    Args:
        row: the set-up.
        lr: learning rate.
        extra: further sections of DeepSpeed's configuration; ``zero_optimization`` is joined.
    """
    config, extra = deepspeed_config(row), dict(extra or {})
    config["zero_optimization"].update(extra.pop("zero_optimization", {}))
    config.update(extra)
    with deepspeed.zero.Init(config_dict_or_path=config, enabled=row.zero_init):
        model = initial_model(row)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=OPTIMIZERS[row.optimizer](parameter_groups(model), lr=lr), config=config
    )
    return engine


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups: matrices decay, the rest does not."""
    matrices: dict[str, Any] = {"params": [], "weight_decay": 0.1}
    rest: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    for parameter in model.parameters():
        if parameter.requires_grad:
            group = matrices if len(getattr(parameter, "ds_shape", parameter.shape)) > 1 else rest
            group["params"].append(parameter)
    return [matrices, rest]


COMPILED = ("cpu_adam", "fused")
"""Optimizers that DeepSpeed compiles, minutes long on two cores: their rows are slow tests."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "cpu_adam": deepspeed.ops.adam.DeepSpeedCPUAdam,
    "fused": deepspeed.ops.adam.FusedAdam,
}


def batch(step: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of a global batch and what is to be said of each: the token before it."""
    tokens = torch.randint(0, VOCABULARY, (size, 6), generator=torch.Generator().manual_seed(step))
    return tokens, torch.roll(tokens, 1, dims=1)


def loss_of(model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
    logits = model(tokens)
    return nn.functional.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1), labels.flatten()
    )


def train_step(engine: Any, row: Row, step: int, size: int | None = None) -> None:
    """Take one optimizer step on this rank's equal part of the global batch.

    Args:
        engine: DeepSpeed's.
        row: its set-up.
        step: chooses the batches.
        size: sequences of the global micro-batch; two a rank by default.
    """
    share = (size or 2 * dist.get_world_size()) // dist.get_world_size()
    own = slice(share * dist.get_rank(), share * (dist.get_rank() + 1))
    for micro in range(row.accumulation):
        tokens, labels = batch(16 * step + micro, share * dist.get_world_size())
        engine.backward(loss_of(engine, tokens[own], labels[own]))
        engine.step()


def full_masters(engine: Any, row: Row) -> dict[str, Tensor]:
    """Return whole fp32 weights by name, read by DeepSpeed's own functions, not by the engine under test."""
    # With round_robin_gradients DeepSpeed's reader returns other parameters' weights: its fp32 copies serve.
    trained = {
        name: parameter
        for name, parameter in engine.module.named_parameters()
        if parameter.requires_grad and getattr(parameter, "ds_numel", parameter.numel()) > 0
    }
    read = (
        _replicated_master if row.stage == 0 or row.round_robin else lambda _, p: safe_get_full_fp32_param(p)
    )
    return {name: read(engine, parameter).detach().clone() for name, parameter in trained.items()}


def _replicated_master(engine: Any, parameter: nn.Parameter) -> Tensor:
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_groups"):
        pairs = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
        return next(
            h for lows, highs in pairs for low, h in zip(lows, highs, strict=True) if low is parameter
        )
    if hasattr(optimizer, "fp32_groups_flat"):
        for lows, flat in zip(optimizer.fp16_groups, optimizer.fp32_groups_flat, strict=True):
            pieces = flat.split([low.numel() for low in lows])
            for low, piece in zip(lows, pieces, strict=True):
                if low is parameter:
                    return piece.view(low.shape)
    return parameter


def full_copies(engine: Any) -> dict[str, Tensor]:
    """Return the whole weights that compute, by name, in their own dtype."""
    found = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            found[name] = parameter.detach().clone()
    return found


def gathered_copies(engine: Any) -> dict[str, Tensor]:
    """Return those weights that stand gathered on this rank now, as the next forward pass would use them."""
    return {
        name: parameter.detach().clone()
        for name, parameter in engine.module.named_parameters()
        if not hasattr(parameter, "ds_id") or parameter.ds_status.name == "AVAILABLE"
    }


def logits_of(model: nn.Module) -> Tensor:
    """Logits of an evaluation pass; under ZeRO-3 it leaves parameters gathered."""
    model.eval()
    with torch.no_grad():
        logits = model(batch(99, 4)[0])
    model.train()
    return logits


@contextmanager
def quiet_deepspeed() -> Iterator[None]:
    """Open gloo, and DeepSpeed without its information lines.

    Its CPU accelerator admits fp16 only where the CPU has fast instructions for it; the arithmetic is the
    same without.
    """
    logger.setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames collectives that DeepSpeed calls
    get_accelerator().is_fp16_supported = lambda: True
    torch.set_num_threads(1)
    with gloo():
        yield
