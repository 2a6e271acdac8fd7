"""A callback that saves the weights of a training's last step."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf.files.folders import new_folder


class KeepLastWeights(TrainerCallback):
    """Saves model and tokenizer when the last step ends: put before a merge, what the merge found.

    For engines on which every process holds whole weights: one process, DDP, ZeRO 0 to 2.

    Args:
        folder: gets its name when everything in it is written.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._folder = Path(folder)

    def on_step_end(
        self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        if not (is_last and state.is_world_process_zero):
            return
        with new_folder(self._folder) as writing:
            kwargs["model"].save_pretrained(writing)
            kwargs["processing_class"].save_pretrained(writing)
