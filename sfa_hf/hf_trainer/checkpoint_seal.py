"""Checkpoints of one's own Trainer that say whether they are whole, and are asked at a resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf.errors import ConfigError
from sfa_hf.files.manifest import MANIFEST, damage, seal
from sfa_hf.hf_trainer.caller import Caller, caller

logger = logging.getLogger(__name__)


class CheckpointSeal(TrainerCallback):
    """Writes a manifest into each checkpoint once all other callbacks have written theirs into it.

    Every process takes its share of the hashing.
    """

    SEALS: ClassVar[bool] = True

    def __init__(self, called: Caller) -> None:
        self.train_call = called.train_call

    def on_save(self, args: TrainingArguments, state: TrainerState, _: TrainerControl, **__: Any) -> None:
        called = caller()
        run_dir = (called and called.run_dir) or Path(str(args.output_dir))
        folder = run_dir / f"checkpoint-{state.global_step}"
        if all(gather_object([folder.is_dir()])):
            seal(folder, {"step": state.global_step})
        else:
            logger.warning("%s is not seen by every process: no %s is written", folder, MANIFEST)


def seal_checkpoints() -> None:
    """Seal the checkpoints of the training that begins, and check the one that it resumes from.

    Called by each of our callbacks in ``on_train_begin``, on every process; the first call does it. Where the
    runner keeps the checkpoints, it is left to the runner.

    Raises:
        ConfigError: a file of the checkpoint has changed since it was written.
    """
    called = caller()
    if called is None or called.trainer is None:
        return
    keeper = next((each for each in called.handler.callbacks if getattr(each, "SEALS", False)), None)
    if keeper is None:
        called.handler.callbacks.append(CheckpointSeal(called))
    elif not isinstance(keeper, CheckpointSeal) or keeper.train_call is called.train_call:
        return
    else:  # of an earlier training
        keeper.train_call = called.train_call
    if called.resumes_from is not None:
        _check(called.resumes_from)


def _check(folder: Path) -> None:
    if not all(gather_object([(folder / MANIFEST).is_file()])):
        logger.warning("%s has no %s: whether its files have changed is not known", folder, MANIFEST)
    elif problem := damage(folder):
        raise ConfigError("resume_from_checkpoint", f"{folder}: {problem}", "an unchanged checkpoint")
