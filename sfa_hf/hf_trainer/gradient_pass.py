"""A pass of the Trainer that computes gradients on the training engine and does not change the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from transformers import PrinterCallback, Trainer, TrainingArguments


def without_updates(arguments: TrainingArguments, **changes: Any) -> TrainingArguments:
    """Copy ``arguments`` with learning rate 0, and without evaluation, checkpoints or logs.

    Args:
        arguments: of a training; not changed. The copy keeps the stage and the optimizer of their DeepSpeed
            config.
        **changes: other fields of the copy, by name.

    Returns:
        The changed copy.
    """
    changed = copy.copy(arguments)
    values: dict[str, Any] = {
        "learning_rate": 0.0,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "lr_scheduler_kwargs": {},
        "warmup_steps": 0,
        "neftune_noise_alpha": None,
        "auto_find_batch_size": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "eval_on_start": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "resume_from_checkpoint": None,
        "report_to": [],
        "disable_tqdm": True,
        **changes,
    }
    for name, value in values.items():
        setattr(changed, name, value)
    if arguments.deepspeed_plugin is not None:
        _change_deepspeed(changed)
    return changed


def _change_deepspeed(arguments: TrainingArguments) -> None:
    """Replace the DeepSpeed config by a copy with the same ZeRO stage and optimizer."""
    plugin = arguments.deepspeed_plugin = copy.deepcopy(arguments.deepspeed_plugin)
    assert plugin is not None
    plugin.gradient_accumulation_steps = arguments.gradient_accumulation_steps
    config = plugin.hf_ds_config.config
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        config[key] = "auto"
    config.pop("scheduler", None)
    if "optimizer" in config:
        config["optimizer"]["params"] = {
            **config["optimizer"].get("params", {}),
            "lr": 0.0,
            "weight_decay": 0.0,
        }
    if getattr(arguments, "hf_deepspeed_config", None) is not None:
        arguments.hf_deepspeed_config = plugin.hf_ds_config
        plugin.hf_ds_config.trainer_config_process(arguments)


@contextmanager
def gradient_pass(make: Callable[[], Trainer]) -> Iterator[Trainer]:
    """Give a quiet Trainer with an engine of its own, and forget that engine afterwards.

    accelerate holds the engine's config in a state of the whole process, which it has no public way to put
    aside: transformers' hyperparameter search calls ``_reset_state`` too. The state before comes back to the
    Trainers that live with it. Not one of DeepSpeed: the next Trainer brings its own config.

    Args:
        make: makes the Trainer.
    """
    kept = dict(AcceleratorState._shared_state)
    AcceleratorState._reset_state()
    try:
        trainer = make()
        trainer.remove_callback(PrinterCallback)
        try:
            yield trainer
        finally:
            trainer.accelerator.free_memory()
    finally:
        AcceleratorState._reset_state()
        if kept.get("distributed_type") != DistributedType.DEEPSPEED:
            AcceleratorState._shared_state.update(kept)
