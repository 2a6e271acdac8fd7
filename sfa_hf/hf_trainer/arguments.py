"""The ``training:`` section: every field of TrainingArguments, checked by name and type."""

from __future__ import annotations

import dataclasses
import math
import sys
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import TrainingArguments

from sfa_hf.config.options import Check, Choice, number, whole
from sfa_hf.config.paths import expanded
from sfa_hf.config.yaml_files import yaml_value
from sfa_hf.errors import ConfigError, nearest, under

# Fields that the runner answers for, and the config key that sets each.
OWNED = {
    "output_dir": "output_dir",
    "seed": "seed",
    "data_seed": "seed",
    "do_train": "the script itself",
    "do_eval": "evaluation",
    "do_predict": "evaluation",
    "eval_strategy": "evaluation",
    "resume_from_checkpoint": "running the same command again",
    "load_best_model_at_end": "nothing: a task's model is the one at its last step",
    "remove_unused_columns": "nothing: rows are encoded by the task",
    "save_only_model": "nothing: an interrupted task resumes from whole checkpoints",
    "save_on_each_node": "nothing: all machines see output_dir",
    "push_to_hub": "nothing: a run stays in its folder",
}

_PATHS = ("accelerator_config", "deepspeed", "fsdp_config")
"""Fields that are the path of a JSON file, where they are text."""
_SEE_ALL = "sfa-hf train --help"
_AT_LEAST_ONE = whole(lambda n: n >= 1, "is too few", "a whole number from 1 on")
_EVERY = number(
    lambda s: 0 < s < 1 or (s >= 1 and s == int(s)),
    "is not a number of steps",
    "a whole number from 1 on, or a fraction of the training below 1",
)
RANGES: dict[str, Check | Choice] = {
    "per_device_train_batch_size": _AT_LEAST_ONE,
    "per_device_eval_batch_size": _AT_LEAST_ONE,
    "gradient_accumulation_steps": _AT_LEAST_ONE,
    "save_total_limit": _AT_LEAST_ONE,
    "max_steps": whole(
        lambda n: n >= 1 or n == -1,
        "is not a number of steps",
        "a whole number from 1 on; -1 to go by num_train_epochs",
    ),
    "num_train_epochs": number(lambda n: n > 0, "are no epochs", "a number above 0"),
    "save_steps": _EVERY,
    "logging_steps": _EVERY,
    "learning_rate": number(lambda rate: rate >= 0, "is not a learning rate", "a finite number from 0 on"),
    "weight_decay": number(lambda w: w >= 0, "is not a weight decay", "a finite number from 0 on"),
    "max_grad_norm": number(lambda n: n >= 0, "is not a norm to clip at", "a number above 0, or 0 for none"),
    "label_smoothing_factor": number(lambda f: 0 <= f < 1, "is not a share", "a number from 0, below 1"),
    "neftune_noise_alpha": number(lambda a: a > 0, "is not a strength of noise", "a number above 0"),
    "save_strategy": Choice(("epoch", "no", "steps")),  # nothing is evaluated in training, so nothing is best
}
"""Checks of values that TrainingArguments takes, and that would fail in training or mean something else."""

CHECKPOINTS_KEPT = 2
"""Unless ``training.save_total_limit`` says otherwise: should one decay, there is the one before it."""

# What differs from TrainingArguments' own defaults; the user's values go on top.
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 50,
    # Without an accelerator the Trainer joins several processes to one training only when told that it is
    # on the CPU; and page-locked batches do nothing there but warn.
    "use_cpu": not torch.accelerator.is_available(),
    "dataloader_pin_memory": torch.accelerator.is_available(),
    "disable_tqdm": not sys.stderr.isatty(),  # a log file gets lines, not a thousand states of a bar
}


def read_training(values: Mapping[str, Any], key: str = "training") -> dict[str, Any]:
    """Check names, and coerce values to the types of TrainingArguments.

    Args:
        values: fields of :class:`transformers.TrainingArguments`.
        key: where they stand in the config, for the error.

    Raises:
        ConfigError: an unknown field, one that the runner owns, or a value of the wrong type.
    """
    return {name: _checked(name, value, f"{key}.{name}") for name, value in values.items()}


def training_arguments(values: Mapping[str, Any], output_dir: Path, seed: int) -> TrainingArguments:
    """Build one task's TrainingArguments from checked values.

    Raises:
        ConfigError: transformers refuses the combination, e.g. ``bf16`` where the machine has none.
    """
    given = {**DEFAULTS, **values, "save_total_limit": None}  # CheckpointKeeper removes old checkpoints
    try:
        return TrainingArguments(output_dir=str(output_dir), seed=seed, remove_unused_columns=False, **given)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise ConfigError(
            "training", str(error), "values that transformers.TrainingArguments takes"
        ) from error


def checkpoints_kept(values: Mapping[str, Any]) -> int:
    """How many checkpoints of a task in training stay on the disk."""
    return max(1, values.get("save_total_limit") or CHECKPOINTS_KEPT)


def _checked(name: str, value: Any, key: str) -> Any:
    if name in OWNED:
        raise ConfigError(key, "is not set here", f"it is set by {OWNED[name]}")
    if name not in _field_types():
        raise ConfigError(key, "is not a field of TrainingArguments", nearest(name, _field_types(), _SEE_ALL))
    if name in _PATHS and isinstance(value, str):
        return expanded(value, key)
    try:
        found = _adapter(name).validate_python(value)
    except ValidationError as error:
        raise ConfigError(key, f"got {value!r}", error.errors()[0]["msg"]) from error
    if isinstance(found, int | float) and _is_other(value, isinstance(found, bool), key):
        raise ConfigError(key, f"got {value!r}", "true or false" if isinstance(found, bool) else "a number")
    if isinstance(found, float) and not math.isfinite(found):
        raise ConfigError(key, f"is {found}", "a finite number")
    if name in RANGES and found is not None:
        with under(key):
            RANGES[name](found)
    return found


def _is_other(value: Any, boolean: bool, key: str) -> bool:
    """Whether a value, or text as the reader of configs reads it, is no number, or no boolean."""
    read = yaml_value(key, value) if isinstance(value, str) else value
    return isinstance(read, str) or (isinstance(read, bool) and not boolean)


@cache
def _field_types() -> dict[str, Any]:
    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainingArguments) if field.init}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_field_types()[name], config=ConfigDict(arbitrary_types_allowed=True))
