"""The ``evaluation:`` section of a config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EvaluationOptions(BaseModel):
    """How much is scored, and how fast.

    Attributes:
        limit: score at most so many held-out rows of each task (a fixed random subset); None: all.
        few_shot: worked examples before each prompt, instead of what the task files say; None: as they say.
        batch_size: sequences in one forward pass. Batches are shared among the processes whole, so a task
            needs at least batch_size x processes rows to keep all of them busy.
        records: also write what the model answered to every row.
        progress: show a progress bar; None: where standard error is a terminal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(default=None, gt=0)
    few_shot: int | None = Field(default=None, ge=0)
    batch_size: int = Field(default=32, gt=0)
    records: bool = True
    progress: bool | None = None
