"""Loads the tensors that the Trainer leaves out when it loads a checkpoint, to resume or as the best one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainerState, TrainingArguments

from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import known_as
from sfa_hf.hf_trainer.caller import caller
from sfa_hf.shards.converted import converts
from sfa_hf.shards.model_files import AnchorFiles

_logger = logging.getLogger(__name__)


def complete_resume(engine: Engine, model: object, args: TrainingArguments, state: TrainerState) -> None:
    """:func:`load_what_was_left` where a training resumes, of the checkpoint that it was told."""
    if state.global_step > 0:
        load_what_was_left(engine, model, resumed_checkpoint(args, state))


def resumed_checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder that a training resumes from: what ``train()`` was told, inside a callback's event."""
    told = called.resumes_from if (called := caller()) else None
    return told or Path(str(args.output_dir), f"checkpoint-{state.global_step}")


def complete_best(engine: Engine, model: object, args: TrainingArguments, state: TrainerState) -> None:
    """After ``load_best_model_at_end``: :func:`load_what_was_left` from the best checkpoint."""
    if args.load_best_model_at_end and state.best_model_checkpoint:
        load_what_was_left(engine, model, Path(state.best_model_checkpoint))


@torch.no_grad()
def load_what_was_left(engine: Engine, model: object, checkpoint: Path) -> list[str]:
    """Load the tensors that have one name in the files of a checkpoint and another in memory.

    The Trainer (transformers 5.23, its issue 48805) matches tensors by the names in the file. Where they
    differ it keeps the initial values of the model, with a warning. Examples are the output head of GPT-NeoX
    (``embed_out`` in the file, ``lm_head`` in memory) and the experts of Mixtral and Qwen-MoE (one tensor per
    expert in the file, fused in memory). ``from_pretrained`` converts them, and so does :class:`AnchorFiles`.

    Args:
        engine: engine of the model; its shards are the weights in training. With partitioned weights nothing
            is left out, because the engine loaded its own checkpoint, by the names in memory.
        model: the model in training.
        checkpoint: the folder that the Trainer loaded.

    Returns:
        Names of the parameters that were loaded.

    Raises:
        ConfigError: the files of the checkpoint cannot be read: the Trainer cannot have loaded them whole.
    """
    if engine.name not in {"plain", "ddp"} or not isinstance(model, PreTrainedModel) or not converts(model):
        return []
    if getattr(model, "_hf_peft_config_loaded", False):  # an adapter's files: the Trainer loads them by name
        return []
    shards = engine.shards()
    files = from_every_process(lambda: _files(checkpoint, model, shards))
    left = [shard for shard in shards if files.renames(shard.name)]
    for shard in left:
        shard.data.copy_(files.read(shard))
    if left:
        _logger.warning(
            "the Trainer did not load %s, which has another name in the files of the checkpoint: loaded now",
            ", ".join(shard.name for shard in left),
        )
        engine.publish()
    return [shard.name for shard in left]


def _files(checkpoint: Path, model: PreTrainedModel, shards: Sequence[Shard]) -> AnchorFiles:
    with known_as("resume_from_checkpoint"):
        files = AnchorFiles(str(checkpoint), model)
        files.check(shards)
    return files
