"""Loads the tensors that the Trainer leaves out when it loads a checkpoint, to resume or as the best one."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainerState, TrainingArguments

from sfa_hf.engines.base import Engine
from sfa_hf.errors import ConfigError
from sfa_hf.shards.model_files import AnchorFiles

_logger = logging.getLogger(__name__)


def complete_resume(engine: Engine, model: object, args: TrainingArguments, state: TrainerState) -> None:
    """:func:`load_what_was_left` where a training resumes: of its step's checkpoint in ``output_dir``."""
    if state.global_step > 0:
        load_what_was_left(engine, model, Path(str(args.output_dir), f"checkpoint-{state.global_step}"))


def complete_best(engine: Engine, model: object, args: TrainingArguments, state: TrainerState) -> None:
    """After ``load_best_model_at_end``: :func:`load_what_was_left` from the best checkpoint."""
    if args.load_best_model_at_end and state.best_model_checkpoint:
        load_what_was_left(engine, model, Path(state.best_model_checkpoint))


@torch.no_grad()
def load_what_was_left(engine: Engine, model: object, checkpoint: Path) -> list[str]:
    """Load the tensors that have one name in the files of a checkpoint and another in memory.

    The Trainer (transformers 5.23) matches tensors by the names in the file. Where they differ it keeps the
    initial values of the model, with a warning. An example is the output head of GPT-NeoX: ``embed_out`` in
    the file, ``lm_head`` in memory. ``from_pretrained`` knows both names, and so does :class:`AnchorFiles`.

    Args:
        engine: engine of the model; its shards are the weights in training. With partitioned weights nothing
            is left out, because the engine loaded its own checkpoint, by the names in memory.
        model: the model in training.
        checkpoint: the folder that the Trainer loaded.

    Returns:
        Names of the parameters that were loaded.
    """
    if engine.name not in {"plain", "ddp"} or not isinstance(model, PreTrainedModel):
        return []
    try:
        files = AnchorFiles(str(checkpoint), model)
        shards = engine.shards()
        files.check(shards)
        left = [shard for shard in shards if files.renames(shard.name)]
    except ConfigError:  # no files of a model: those of an adapter or of another Trainer
        return []
    for shard in left:
        shard.data.copy_(files.read(shard))
    if left:
        _logger.warning(
            "the Trainer did not load %s, which has another name in the files of the checkpoint: loaded now",
            ", ".join(shard.name for shard in left),
        )
        engine.publish()
    return [shard.name for shard in left]
