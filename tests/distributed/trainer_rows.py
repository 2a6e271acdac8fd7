"""How a Trainer is run on each engine that shards: ZeRO-2, ZeRO-3, and FSDP2 on CPU processes."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import deepspeed
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from deepspeed.utils import logger, safe_get_full_fp32_param
from distributed.harness import run_ranks
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from sfa_hf.distributed import clean_end
from tests.tiny_training import arguments, rows, tiny_model

ENGINES = ("zero2", "zero3", "fsdp2")


Row = Callable[[str, Path], None]
STEPS_OF_AN_EPOCH = 4
_OF_THE_TRAINER = {"optimizer_cls_and_kwargs", "compute_metrics"}


def assert_all_hold(table: Iterable[Row], engine: str, folder: Path) -> None:
    """Call each row with the engine and a folder of its own, all in one launch of two processes."""
    names = [f"{row.__module__}:{row.__name__}" for row in table]
    for found in run_ranks(failures, 2, seconds=600, table=names, engine=engine, folder=str(folder)):
        assert not found, "\n".join(found.values())


def failures(table: list[str], engine: str, folder: str) -> dict[str, str]:
    """The traceback of each row that fails, in one of the processes."""
    found = {}
    with training():
        for name in table:
            module, row = name.split(":")
            try:
                getattr(importlib.import_module(module), row)(engine, Path(folder, row))
            except (Exception, pytest.fail.Exception):
                found[row] = traceback.format_exc()
    return found


def train(
    engine: str,
    folder: Path,
    callbacks: list[TrainerCallback],
    model: nn.Module | None = None,
    **changes: Any,
) -> Trainer:
    """Train for two epochs of :data:`STEPS_OF_AN_EPOCH` steps."""
    resume = changes.pop("resume_from_checkpoint", None)
    options = {key: changes.pop(key) for key in _OF_THE_TRAINER & set(changes)}
    trainer = Trainer(
        model or tiny_model(),
        settings(engine, folder, **{"max_steps": 2 * STEPS_OF_AN_EPOCH, **changes}),
        train_dataset=rows(4 * STEPS_OF_AN_EPOCH),
        eval_dataset=rows(8, seed=2),
        callbacks=callbacks,
        **options,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def settings(engine: str, folder: str | Path, **changes: Any) -> TrainingArguments:
    """Arguments of a short training in fp32 with fp32 files, under one of :data:`ENGINES`."""
    return arguments(Path(folder), **{"per_device_train_batch_size": 2, **_ENGINES[engine], **changes})


def _zero(stage: int) -> dict[str, Any]:
    config = {
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    return {"deepspeed": config}


_ENGINES: dict[str, dict[str, Any]] = {
    "zero2": _zero(2),
    "zero3": _zero(3),
    "fsdp2": {"fsdp": True, "fsdp_config": {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}},
}


@contextmanager
def training() -> Iterator[None]:
    """Train as a script would, with DeepSpeed quiet and with FSDP on the CPU."""
    logger.setLevel(logging.ERROR)
    with fsdp_on_cpu(), clean_end():
        yield


@contextmanager
def fsdp_on_cpu() -> Iterator[None]:
    """accelerate (1.15) makes DDP of FSDP on CPU processes without a word: hold it to what it was told."""
    made = AcceleratorState.__init__

    def make(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        made(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    with patch.object(AcceleratorState, "__init__", make):
        yield


@torch.no_grad()
def whole(model: nn.Module) -> dict[str, Tensor]:
    """The weights that the optimizer steps, whole, by name; a collective call.

    Read by the engines' own functions, not by those under test.
    """
    return {name: _whole(p).detach().clone() for name, p in model.named_parameters()}


def _whole(parameter: nn.Parameter) -> Tensor:
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    if parameter.requires_grad and hasattr(parameter, "_hp_mapping"):
        return safe_get_full_fp32_param(parameter)
    with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
        return parameter.clone()
