"""The ``evaluation:`` section of a config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EvaluationOptions(BaseModel):
    """How much is scored, and how fast.

    Attributes:
        limit: score at most so many held-out rows of each task (a fixed random subset); None: all.
        batch_size: sequences in one forward pass. Batches are shared among the processes whole, so a task
            needs at least batch_size x processes rows to keep all of them busy.
        records: also write what the model answered to every row.
        allow_unsandboxed_code: run the programs of code tasks even where this machine has no sandbox for
            them, with your own rights; where it has one, they run in it all the same. See docs/sandbox.md.
        code_workers: programs that each process runs at once; None: one a core, shared by the processes.
        progress: show a progress bar; None: where standard error is a terminal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, gt=0)
    records: bool = True
    allow_unsandboxed_code: bool = False
    code_workers: int | None = Field(default=None, gt=0)
    progress: bool | None = None
