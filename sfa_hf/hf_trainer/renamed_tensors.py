"""What the Trainer leaves undone when it loads a checkpoint, to resume from or as the best one."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainerState, TrainingArguments

from sfa_hf.engines.base import Engine
from sfa_hf.errors import ConfigError
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
    """:func:`load_what_was_left` where a training has ended with ``load_best_model_at_end``."""
    if args.load_best_model_at_end and state.best_model_checkpoint:
        load_what_was_left(engine, model, Path(state.best_model_checkpoint))


@torch.no_grad()
def load_what_was_left(engine: Engine, model: object, checkpoint: Path) -> list[str]:
    """Load the tensors that have another name in a checkpoint's files than in the model's memory.

    The Trainer (transformers 5.23, its issue 48805) matches them by the names in the file, and goes on with
    the model's initial values where those differ, with a warning: GPT-NeoX's output head is ``embed_out``
    there and ``lm_head`` here; the experts of Mixtral or Qwen-MoE are one tensor each there and fused here.
    ``from_pretrained`` converts, and so does the anchor's reader.

    Args:
        engine: its shards are the weights in training. Where they are partitioned, the engine's own
            checkpoint was loaded, by the names in memory: nothing is left.
        model: in training.
        checkpoint: the folder that the Trainer loaded.

    Returns:
        The names of the parameters that were loaded.

    Raises:
        ConfigError: the checkpoint's files cannot be read, and the Trainer cannot have loaded them whole.
    """
    if engine.name not in {"plain", "ddp"} or not isinstance(model, PreTrainedModel) or not converts(model):
        return []
    if getattr(model, "_hf_peft_config_loaded", False):  # an adapter's files: the Trainer loads them by name
        return []
    shards = engine.shards()
    try:
        files = AnchorFiles(str(checkpoint), model)
        files.check(shards)
    except ConfigError as error:
        raise ConfigError("resume_from_checkpoint", error.problem, error.right) from error
    left = [shard for shard in shards if files.renames(shard.name)]
    for shard in left:
        shard.data.copy_(files.read(shard))
    if left:
        _logger.warning(
            "the Trainer loaded a checkpoint without %s, which has another name in its files: loaded now",
            ", ".join(shard.name for shard in left),
        )
        engine.publish()
    return [shard.name for shard in left]
