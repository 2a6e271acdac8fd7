"""Checkpoints of one's own Trainer that say whether they are whole, and are asked at a resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar
from weakref import ref

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from sfa_hf.distributed.processes import barrier, everyones
from sfa_hf.errors import ConfigError
from sfa_hf.files.manifest import MANIFEST, damage, files_in, seal
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
        barrier()  # every process has written its files
        first, *others = everyones([path.relative_to(folder).as_posix() for path in files_in(folder)])
        if first and all(files == first for files in others):
            seal(folder, {"step": state.global_step})
        elif state.is_world_process_zero:
            logger.warning("%s is not the same for every process: no %s is written", folder, MANIFEST)


class CheckedTrain:
    """``train`` of one Trainer, which checks the checkpoint that it is told to resume from.

    The Trainer reads it before any event, and what it cannot read fails there, on one process or on all, with
    a traceback that names no file.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = ref(trainer)  # or the model would live until the next collection

    def __call__(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        trainer = self._trainer()
        assert trainer is not None
        told = resume_from_checkpoint
        folder = get_last_checkpoint(str(trainer.args.output_dir)) if told is True else told
        if folder and all(everyones(Path(folder).is_dir())):
            _check(Path(folder))
        return type(trainer).train(trainer, told, *args, **kwargs)


def check_resumes() -> None:
    """Have the Trainer that is being made check each checkpoint that it resumes from, before it reads it.

    Called by each of our callbacks in ``on_init_end``; the first call does it. Where the runner keeps the
    checkpoints, it is left to the runner.
    """
    called = caller()
    if called is None or called.trainer is None or isinstance(called.trainer.train, CheckedTrain):
        return
    if not any(getattr(each, "SEALS", False) for each in called.handler.callbacks):
        called.trainer.train = CheckedTrain(called.trainer)


def seal_checkpoints() -> None:
    """Seal the checkpoints of the training that begins, and check the one that it resumes from.

    Called by each of our callbacks in ``on_train_begin``, on every process; the first call does it. Where the
    runner keeps the checkpoints, it is left to the runner. :class:`CheckedTrain` has checked already, unless
    the callback was added to a Trainer that had been made.

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
    if called.resumes_from is not None and not isinstance(called.trainer.train, CheckedTrain):
        _check(called.resumes_from)


def _check(folder: Path) -> None:
    if not all(everyones((folder / MANIFEST).is_file())):
        logger.warning("%s has no %s: whether its files have changed is not known", folder, MANIFEST)
    elif problem := damage(folder):
        raise ConfigError("resume_from_checkpoint", f"{folder}: {problem}", "an unchanged checkpoint")
