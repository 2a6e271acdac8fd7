"""Rehearsal: a little of every past task's data, trained on again (the data buffer of arXiv 2501.05559)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from accelerate import PartialState
from pydantic import Field

from sfa_hf.adapters.options import AFTER_TASK
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_checked, write_checked
from sfa_hf.methods.base import PLAIN, Method, Preparation, Stage
from sfa_hf.tasks import Row, Task

BUFFER = "buffer.json"
FRACTION = 0.05
_BROKEN = "restore the file, or start again with overwrite=true"


class Rehearsal(Method):
    """Task k trains on its own rows and on the buffers of the tasks before it, shuffled together.

    A task's buffer is drawn once, without replacement, and kept as ``buffer.json`` in its folder.

    Attributes:
        fraction: of a past task's rows that its buffer holds; 0.05 in the paper.
        buffer_rows: how many rows a buffer holds, instead of ``fraction``.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = AFTER_TASK

    name: Literal["rehearsal"] = "rehearsal"
    fraction: Annotated[float, Field(gt=0, le=1)] = FRACTION
    buffer_rows: Annotated[int, Field(gt=0)] | None = None

    def check(self) -> None:
        if self.fraction != FRACTION and self.buffer_rows is not None:
            problem = f"is {self.buffer_rows} beside a fraction of {self.fraction}"
            raise ConfigError("buffer_rows", problem, "one of buffer_rows and fraction")

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        for task in tasks[:-1]:
            rows = len(task.train_rows())
            if (self.buffer_rows or 0) > rows:
                problem = f"is {self.buffer_rows}, and task {task.name} has {rows} rows"
                raise ConfigError("buffer_rows", problem, f"at most {rows}")

    @property
    def first_training(self) -> str | None:
        return PLAIN

    def prepare(self, preparation: Preparation) -> None:
        processes = PartialState()
        if processes.is_main_process:
            for past in preparation.stage.past:
                if not (past.folder / BUFFER).exists():
                    self._draw(past)
        processes.wait_for_everyone()

    def rows(self, stage: Stage) -> list[Row]:
        return [*stage.task.train_rows(), *(row for past in stage.past for row in read_buffer(past))]

    def _draw(self, past: Stage) -> None:
        rows = past.task.train_rows()
        count = self.buffer_rows or max(1, round(self.fraction * len(rows)))
        draw = random.Random(f"{past.seed} {past.task.name}")  # noqa: S311 - reproducible, not a secret
        drawn = sorted(draw.sample(range(len(rows)), count))
        write_checked(
            past.folder / BUFFER,
            {"of": len(rows), "rows": [[i, rows[i].prompt, rows[i].target, rows[i].messages] for i in drawn]},
        )


def read_buffer(past: Stage) -> list[Row]:
    """The rows that were kept of a past task.

    Raises:
        ConfigError: the file is not there, or is not what was written.
    """
    kept = read_checked(past.folder / BUFFER, _BROKEN)["rows"]
    return [
        Row(prompt, target, index=index, messages=tuple(messages)) for index, prompt, target, messages in kept
    ]
