"""What is wrong with a model or a training's arguments is told before the first step, in one line."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from sfa_hf.distributed.processes import everyones
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError

_logger = logging.getLogger(__name__)

_FINITE = ("learning_rate", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon")

Trainable = tuple[tuple[str, torch.Size], ...]


def refuse_infinite_arguments(args: TrainingArguments, optimizer: Any) -> None:
    """Refuse numbers that would make every weight NaN at the first step.

    Args:
        args: of the training.
        optimizer: in any wrapper; one that was passed to the Trainer has numbers of its own.

    Raises:
        ConfigError: names the argument.
    """
    _refuse_infinite((name, getattr(args, name, None)) for name in _FINITE)
    refuse_infinite_groups(optimizer)


def refuse_infinite_groups(optimizer: Any) -> None:
    """:func:`refuse_infinite_arguments` of an optimizer's own numbers alone."""
    for group in optimizer.param_groups:
        _refuse_infinite((f"optimizer's {name}", value) for name, value in group.items() if name != "params")


def _refuse_infinite(given: Iterable[tuple[str, Any]]) -> None:
    for name, value in given:
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(name, f"is {value}", "a finite number")


@torch.no_grad()
def refuse_infinite_values(engine: Engine, pieces: Iterable[tuple[Shard, Tensor]], key: str) -> None:
    """Refuse values that are NaN or infinite; a collective call, which fails on all ranks or on none.

    Args:
        engine: which ranks own distinct shards.
        pieces: this rank's shards, each with its values: one-dimensional, any dtype and device.
        key: what the user gave them as.

    Raises:
        ConfigError: says how many there are, and in which parameters.
    """
    wrong: dict[str, int] = {}
    for shard, values in pieces:
        # The largest magnitude is NaN or infinite where any value is, and takes no memory.
        if values.numel() and not torch.isfinite(torch.linalg.vector_norm(values, float("inf"))):
            wrong[shard.name] = int((~torch.isfinite(values)).sum())
    if names := list(dict.fromkeys(name for of_rank in everyones(list(wrong)) for name in of_rank)):
        local = torch.tensor([sum(wrong.values())], dtype=torch.float64)
        count = int(engine.sum_over_shards(local).item())
        problem = f"{count} values are NaN or infinite ({', '.join(names[:3])})"
        raise ConfigError(key, problem, "weights that are all finite")


def trainable(model: nn.Module) -> Trainable:
    """Names and full shapes of the parameters that are trained now."""
    return tuple(
        (name, getattr(p, "ds_shape", p.shape)) for name, p in model.named_parameters() if p.requires_grad
    )


def refuse_changes(before: Trainable, model: nn.Module, step: int) -> None:
    """Refuse to go on where parameters were frozen, unfrozen, added or resized after the training began.

    Raises:
        NotImplementedError: names them and the step.
    """
    now = trainable(model)
    if now != before:
        changed = sorted({name for name, _ in set(now) ^ set(before)})
        raise NotImplementedError(
            f"sfa_hf cannot follow parameters that are frozen, unfrozen, added or resized during training: "
            f"{', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''} changed before step {step + 1}; "
            "supported: the same trainable parameters from the first step to the last"
        )


def warn_of_buffers(model: nn.Module) -> None:
    """Say which saved values are neither averaged nor restored: running statistics, such as BatchNorm's."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    saved = model.state_dict(keep_vars=True)
    buffers = [name for name, value in saved.items() if name not in parameters and value.is_floating_point()]
    if buffers:
        _logger.warning(
            "%d buffers (%s ...) are left as training makes them: parameters alone are averaged",
            len(buffers),
            buffers[0],
        )
