"""How a task's model comes into the run folder: saved by the Trainer, merged of saved ones, or linked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from transformers import Trainer

from sfa_hf.checkpoints import make_recipe, merge_checkpoints
from sfa_hf.files.atomic import link_or_copy
from sfa_hf.files.folders import aside, put_in_place
from sfa_hf.files.manifest import seal
from sfa_hf.hf_trainer.checkpoints import checkpoints_in, remove_checkpoint
from sfa_hf.methods import Method, Stage


def keep_model(
    trainer: Trainer,
    stage: Stage,
    make: Callable[[Path], None] | None,
    seconds: float,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Save what training left as ``stage.model``; or as ``stage.trained``, of which ``make`` makes the model.

    A collective call. Each folder has its name only when it is whole; ``finish`` changes the model before.
    """
    processes = PartialState()
    if make is None:
        trainer.save_model(str(aside(stage.model)))
    else:
        trainer.save_model(str(aside(stage.trained)))
        _seal_in_place(stage.trained, stage, seconds)
        if processes.is_main_process:
            shutil.rmtree(aside(stage.model), ignore_errors=True)
            make(aside(stage.model))
    processes.wait_for_everyone()
    if finish is not None:
        finish(aside(stage.model))
    _seal_in_place(stage.model, stage, seconds)
    if processes.is_main_process:
        for _step, checkpoint in checkpoints_in(stage.folder):
            remove_checkpoint(checkpoint)
    processes.wait_for_everyone()


def maker(method: Method, stage: Stage) -> Callable[[Path], None] | None:
    """What makes a stage's model of saved ones; None where what training leaves is the model."""
    recipe = method.deployed(stage)
    if recipe is None:
        return method.combines(stage)

    def merge(out: Path) -> None:
        merge_checkpoints(make_recipe(recipe), out)

    return merge


def keep_same_model(stage: Stage) -> None:
    """Make the model of the stage before this one's too, without a second copy on the disk."""
    if PartialState().is_main_process:
        shutil.rmtree(aside(stage.model), ignore_errors=True)
        shutil.copytree(stage.past[-1].model, aside(stage.model), copy_function=link_or_copy)
    _seal_in_place(stage.model, stage, 0.0)


def _seal_in_place(final: Path, stage: Stage, seconds: float) -> None:
    """Seal what was written aside, with what its training took, and give it its name."""
    seal(aside(final), {"task": stage.task.name, "seconds": seconds})
    if PartialState().is_main_process:
        put_in_place(aside(final), final)
    PartialState().wait_for_everyone()
