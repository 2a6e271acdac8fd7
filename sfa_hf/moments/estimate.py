r"""\bar F for a model that came without: a pass over rows of what it knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments

from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.gradient_pass import gradient_pass, without_updates
from sfa_hf.moments.callback import SecondMomentsCallback
from sfa_hf.moments.folder import FOLDER


def estimate_second_moments(
    model: nn.Module,
    args: TrainingArguments,
    rows: Dataset,
    output_dir: str | PathLike[str],
    *,
    data_collator: Callable[[Any], dict[str, Any]] | None = None,
) -> Path:
    r"""Let Adam see the gradients of ``rows`` without moving the weights, and keep its second moments.

    One pass with a learning rate of 0, and all else as in training: batches, loss, clipping, dropout, engine
    and precision, so that the moments have the scale of a training's. Those that a training leaves average
    over its last 1 / (1 - \beta_2) steps, whose weights moved; these are of the weights as they are.

    A collective call of the processes that train. It takes the memory of a training with Adam.

    Example:
        >>> args = TrainingArguments("runs/law", per_device_train_batch_size=32)
        >>> moments = estimate_second_moments(model, args, math, "runs/math")
        >>> SFACallback(beta=0.25, p=0.25, rule="fisher", anchor="runs/math/model", anchor_moments=moments)

    Args:
        model: loaded for this; its weights keep their bits.
        args: of the training that will be merged; not changed.
        rows: tokenised, as for that training; 1 / (1 - \beta_2) batches are enough.
        output_dir: gets the folder ``_second_moments``, in place of an older one.
        data_collator: as for that training.

    Returns:
        That folder: ``anchor_moments`` of :class:`sfa_hf.SFACallback`.

    Raises:
        ConfigError: no rows, or no room.
        NotImplementedError: an optimizer without second moments, or a set-up that the engines refuse.
    """
    if len(rows) == 0:
        raise ConfigError("rows", "are none", "rows of the tasks before")
    make = partial(
        Trainer,
        model=model,
        args=without_updates(args, output_dir=str(output_dir), num_train_epochs=1, max_steps=-1),
        train_dataset=rows,
        data_collator=data_collator,
        callbacks=[SecondMomentsCallback()],
    )
    with gradient_pass(make) as trainer:
        trainer.train()
    return Path(output_dir, FOLDER)
