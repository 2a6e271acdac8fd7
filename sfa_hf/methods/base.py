"""What a continual-learning method is to the sequence runner."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from transformers import TrainerCallback


@dataclass(frozen=True)
class Stage:
    """One task of a sequence, as a method sees it.

    Attributes:
        index: position k of the task in the sequence, from 0.
        task: the task's name.
        start: folder (or Hub id) of the weights that this task starts from: theta_o.
        folder: this task's part of the run folder.
    """

    index: int
    task: str
    start: str
    folder: Path


class Method(BaseModel, ABC):
    """A continual-learning method. Its fields are its options; ``name`` selects it in a config.

    A subclass adds fields and overrides what it changes about plain sequential fine-tuning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str

    def check(self) -> None:
        """Raise ConfigError for option values that do not go together, before anything is loaded."""

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        """Trainer callbacks for one task; none for plain fine-tuning."""
        del stage
        return []
