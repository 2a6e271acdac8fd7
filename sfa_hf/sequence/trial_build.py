"""Building what ``training:`` configures, to drop it: what cannot be built is refused before a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks

from sfa_hf.distributed.peers import is_of_collective
from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.arguments import training_arguments

_STEPS = 10
"""Of the schedule that is built; no schedule's arguments depend on it."""
_RIGHT = "what transformers and torch build a training from"


def check_training(values: Mapping[str, Any], keys: Mapping[str, str], output_dir: Path, seed: int) -> None:
    """Build everything that one task's fields configure, and drop it.

    Args:
        values: checked fields of TrainingArguments.
        keys: where each field stands in the config.
        output_dir: the task's; nothing is written.
        seed: the run's.

    Raises:
        ConfigError: by the field without which it could be built, where there is one.
    """
    problem = _problem(values, output_dir, seed)
    if problem is None:
        return
    for name, value in values.items():
        others = {other: values[other] for other in values if other != name}
        if _problem(others, output_dir, seed) is None:
            raise ConfigError(keys[name], f"{value!r}: {problem}", _RIGHT)
    raise ConfigError("training", problem, _RIGHT)


def _problem(values: Mapping[str, Any], output_dir: Path, seed: int) -> str | None:
    try:
        _build(training_arguments(values, output_dir, seed))
    except ConfigError as error:
        return error.problem
    except Exception as error:
        if is_of_collective(error):  # another process is gone, and nothing is wrong with the values
            raise
        return str(error) or type(error).__name__
    return None


def _build(arguments: TrainingArguments) -> None:
    arguments.get_process_log_level()
    for report in get_reporting_integration_callbacks(arguments.report_to):
        report()
    _build_optimizer(arguments)
    torch.utils.data.DataLoader(
        [0],  # type: ignore[arg-type]
        batch_size=arguments.train_batch_size,
        num_workers=arguments.dataloader_num_workers,
        prefetch_factor=arguments.dataloader_prefetch_factor,
        persistent_workers=arguments.dataloader_persistent_workers,
    )


def _build_optimizer(arguments: TrainingArguments) -> None:
    """Build the optimizer for one weight, and its schedule."""
    if arguments.optim_target_modules is not None:
        return  # made for modules that only the model has
    model = torch.nn.Linear(1, 1).to(arguments.device)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    for name in ("model", "optimizer_dict", "params"):  # what some make of the model, in the Trainer's words
        options.pop(name, None)
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
        optimizer = kind(model.parameters(), **options)
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            arguments.get_warmup_steps(_STEPS),
            _STEPS,
            arguments.lr_scheduler_kwargs,
        )
