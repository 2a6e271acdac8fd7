"""Training one task of a sequence, and holding a model that is only scored."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.integrations.deepspeed import deepspeed_init, is_deepspeed_zero3_enabled

from sfa_hf import engines
from sfa_hf.engines.zero_init import join_deepspeed
from sfa_hf.methods import Stage
from sfa_hf.models import load_model
from sfa_hf.sequence.config import RunConfig
from sfa_hf.tasks import collator, encode

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """A task's model right after its last step, still where training left it.

    Attributes:
        trainer: holds the model, on its engine.
        seconds: wall time of ``train()``; the merges' share is in them.
        merges: one record a merge, as in results.json.
    """

    trainer: Trainer
    seconds: float
    merges: list[dict[str, Any]]

    @property
    def engine(self) -> str:
        try:
            return engines.attach(self.trainer.model, self.trainer.optimizer).name
        except NotImplementedError:  # a method that merges nothing may train on an engine that cannot merge
            return str(self.trainer.accelerator.distributed_type.value).lower()


@contextmanager
def trained(stage: Stage, config: RunConfig, arguments: TrainingArguments) -> Iterator[Trained]:
    """Train the stage's task from ``stage.start``; the model lives until the block ends."""
    _save_whole_models(arguments)
    task = config.tasks[stage.index]
    model, tokenizer = loaded(stage.start, config.model.dtype)
    rows, report = encode(task.train_rows(), tokenizer, config.data)
    logger.info("%s: %s", task.name, report.summary())
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator(tokenizer),
        processing_class=tokenizer,
        callbacks=config.method.callbacks(stage),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    try:
        yield Trained(
            trainer, seconds, _merges(trainer.state.log_history, task.name, trainer.state.max_steps)
        )
    finally:
        trainer.accelerator.free_memory()
        del trainer, model
        collect()


def loaded(start: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model; under ZeRO-3, which living TrainingArguments tell of, partitioned while it is read."""
    join_deepspeed()
    return load_model(start, dtype)


def placed(model: PreTrainedModel, arguments: TrainingArguments) -> nn.Module:
    """Put a loaded model where, and into the precision in which, the Trainer would hold it after training."""
    trainer = Trainer(model=model, args=arguments)
    if is_deepspeed_zero3_enabled():
        deepspeed_init(trainer, num_training_steps=0, inference=True)
        trainer.accelerator.prepare(model)
        return model
    if trainer.is_deepspeed_enabled:
        low = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
        return model.to(arguments.device, dtype=low)
    return trainer.accelerator.prepare_model(model, evaluation_mode=True)


def _save_whole_models(arguments: TrainingArguments) -> None:
    """ZeRO-3 writes a model file only where it is told to gather one, and the next task starts from it."""
    plugin = arguments.deepspeed_plugin
    if plugin is None:
        return
    zero = plugin.hf_ds_config.config.setdefault("zero_optimization", {})
    if zero.get("stage") == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True


def _merges(history: list[Mapping[str, Any]], task: str, steps: int) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "step": entry["step"],
            "of": steps,
            **{
                key: entry[f"sfa/{key}"]
                for key in ("beta", "drift_before", "drift_after", "seconds", "bytes")
            },
        }
        for entry in history
        if "sfa/merge" in entry
    ]


def collect() -> None:
    """Give back the memory of a model that has just been dropped."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
