"""Single-task fine-tuning: each task from the base, as if there were no other."""

from __future__ import annotations

from typing import ClassVar, Literal

from sfa_hf.methods.base import PLAIN, Method, Stage


class SingleTask(Method):
    """The reference for learning: what each task's score is with nothing to remember.

    Row k of the scores is the model of task k alone.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = ("new", "carry", "merge")

    name: Literal["single_task"] = "single_task"

    @property
    def first_training(self) -> str | None:
        return PLAIN

    def start(self, stage: Stage) -> str:
        return stage.base
