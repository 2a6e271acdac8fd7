"""The checkpoints of a task in training: sealed, removed when newer ones are whole, found again on resume."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError
from sfa_hf.files.manifest import damage, read_facts, seal
from sfa_hf.files.owned import Names, remove_files, remove_known
from sfa_hf.hf_trainer.saved_names import saved_names

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")


class Checkpoint(NamedTuple):
    """A whole checkpoint.

    Attributes:
        step: after which it was written.
        path: its folder.
        facts: what the keeper wrote down with it: the training's, and ``seconds`` spent on it so far.
    """

    step: int
    path: Path
    facts: dict[str, Any]


class CheckpointKeeper(TrainerCallback):
    """Seals each checkpoint as it is written, and then removes those that are no longer needed.

    The Trainer would remove the old one when the new one has been handed to the operating system, which is
    not yet on the disk: leave its ``save_total_limit`` unset. It would also save the last step, whose model
    the runner keeps anyway.

    Args:
        facts: what a resume must find unchanged.
        kept: how many to keep.
        seconds: training time that the checkpoint resumed from had taken.
    """

    SEALS: ClassVar[bool] = True

    def __init__(self, facts: Mapping[str, Any], kept: int, seconds: float = 0.0) -> None:
        self._facts = dict(facts)
        self._kept = kept
        self._seconds = seconds
        self._began = time.perf_counter()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(
        self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, _: TrainerControl, **__: Any) -> None:
        folder = Path(str(args.output_dir))
        seconds = self._seconds + time.perf_counter() - self._began
        seal(folder / f"checkpoint-{state.global_step}", {**self._facts, "seconds": seconds})
        if state.is_world_process_zero:
            for _step, older in checkpoints_in(folder)[self._kept :]:
                remove_checkpoint(older)


def newest_whole(folder: Path, names: Names) -> Checkpoint | None:
    """Find the checkpoint to resume from; each one that is damaged is named in a warning. A collective call.

    Whatever else an interrupted training left in the folder is removed: what is newer, and what is no
    checkpoint. What no training writes is left alone.

    Args:
        folder: of the task; made if it is not there.
        names: that a training writes into it.

    Raises:
        ConfigError: what would be removed holds something that no training wrote, or a symbolic link.
    """
    found = _newest_whole(folder)
    from_first_process(lambda: _tidy(folder, names, found))
    return found


def _tidy(folder: Path, names: Names, found: Checkpoint | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = [path for step, path in checkpoints_in(folder) if found and step <= found.step]
    remove_known(folder, names, kept, "output_dir")


def _newest_whole(folder: Path) -> Checkpoint | None:
    for step, path in from_first_process(lambda: checkpoints_in(folder)):
        if problem := damage(path):
            logger.warning("skipping %s: %s", path, problem)
        else:
            return Checkpoint(step, path, read_facts(path))
    return None


def check_resumable(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> None:
    """Refuse to resume where the outcome would be another one.

    Args:
        checkpoint: as found.
        facts: of the training that would resume.

    Raises:
        ConfigError: other rows, another number of samples a step, or ZeRO's partitions of other processes.
    """
    then = checkpoint.facts
    if then["rows"] != facts["rows"]:
        problem = f"the training rows are not those that {checkpoint.path} was trained on"
        raise ConfigError("sequence", problem, "the same data, or overwrite=true")
    if then["zero"] != facts["zero"] or (facts["zero"] and then["processes"] != facts["processes"]):
        problem = f"{checkpoint.path} was written by {_layout(then)}, this launch is {_layout(facts)}"
        raise ConfigError("training.deepspeed", problem, "the layout that it was written by")
    if then["samples"] != facts["samples"]:
        problem = f"{checkpoint.path} took {then['samples']} samples a step, this launch {facts['samples']}"
        right = f"processes x per_device_train_batch_size x gradient_accumulation_steps = {then['samples']}"
        raise ConfigError("training.per_device_train_batch_size", problem, right)
    if then["processes"] != facts["processes"]:
        logger.warning(
            "%d processes continue what %d began: the same samples in each step, in another order of sums",
            facts["processes"],
            then["processes"],
        )


def remove_checkpoint(folder: Path) -> None:
    """Remove the files that were saved in a checkpoint, and its folder if nothing else is in it."""
    remove_files(folder, saved_names(folder))


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    """All checkpoints of a task, whole or not, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))]
    return sorted((each for each in found if not each[1].is_symlink()), reverse=True)


def _layout(facts: Mapping[str, Any]) -> str:
    engine = f"ZeRO-{facts['zero']}" if facts["zero"] else "no ZeRO partitioning"
    return f"{facts['processes']} processes with {engine}"
