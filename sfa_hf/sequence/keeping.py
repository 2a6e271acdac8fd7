"""How a task's model comes into the run folder: saved by the Trainer, merged of saved ones, or linked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer

from sfa_hf.checkpoints import make_recipe, merge_checkpoints
from sfa_hf.files.atomic import link_or_copy, sync_folder
from sfa_hf.files.manifest import seal
from sfa_hf.methods import Stage


def keep_trained(
    trainer: Trainer,
    stage: Stage,
    recipe: Mapping[str, Any] | None,
    seconds: float,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Save what training left as ``stage.model``; or as ``stage.trained``, and merge the model by ``recipe``.

    A collective call. Each folder has its name only when it is whole; ``finish`` changes the model before.
    """
    kept = stage.model if recipe is None else stage.trained
    written = _writing(kept)
    trainer.save_model(str(written))
    if recipe is None and finish is not None:
        PartialState().wait_for_everyone()
        finish(written)
    _adopt(written, kept, stage, seconds)
    if recipe is not None:
        _merge(recipe, _writing(stage.model))
        if finish is not None:
            finish(_writing(stage.model))
        _adopt(_writing(stage.model), stage.model, stage, seconds)
    if PartialState().is_main_process:
        for checkpoint in stage.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()


def keep_same(stage: Stage) -> None:
    """Make the model of the stage before this one's too, without a second copy on the disk."""
    written = _writing(stage.model)
    if PartialState().is_main_process:
        shutil.rmtree(written, ignore_errors=True)
        shutil.copytree(stage.past[-1].model, written, copy_function=_link)
    _adopt(written, stage.model, stage, 0.0)


def _merge(recipe: Mapping[str, Any], out: Path) -> None:
    if PartialState().is_main_process:
        shutil.rmtree(out, ignore_errors=True)
        merge_checkpoints(make_recipe(recipe), out)
    PartialState().wait_for_everyone()


def _link(source: str, target: str) -> None:
    link_or_copy(Path(source), Path(target))


def _writing(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.writing")


def _adopt(written: Path, final: Path, stage: Stage, seconds: float) -> None:
    """Seal a folder, with what its training took, and give it its name."""
    seal(written, {"task": stage.task.name, "seconds": seconds})
    if PartialState().is_main_process:
        if final.exists():
            shutil.rmtree(final)
        written.rename(final)
        sync_folder(final.parent)
    PartialState().wait_for_everyone()
