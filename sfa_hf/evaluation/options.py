"""The ``evaluation:`` section of a config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from sfa_hf.config.paths import UserPath


class LmEvalOptions(BaseModel):
    """Tasks of the lm-evaluation-harness, evaluated on each saved model.

    Attributes:
        tasks: their names, groups and tags among them.
        num_fewshot: worked examples; None: as each task says.
        limit: first rows of each task; None: all.
        batch_size: None: as for the other tasks.
        include_path: folder of further task files.
        processes: how many share the rows, on the first machine; None: as many as train there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tasks: list[str] = Field(min_length=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    limit: int | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, gt=0)
    include_path: UserPath | None = None
    processes: int | None = Field(default=None, gt=0)


class EvaluationOptions(BaseModel):
    """How much is scored, and how fast.

    Attributes:
        limit: score at most so many held-out rows of each task (a fixed random subset); None: all.
        every: score all tasks every so many steps of training, too; None: before and after each task alone.
        every_limit: held-out rows of each task scored then; None: as many as ``limit`` says.
        few_shot: worked examples before each prompt, instead of what the task files say; None: as they say.
        batch_size: sequences in one forward pass. Batches are shared among the processes whole, so a task
            needs at least batch_size x processes rows to keep all of them busy.
        records: also write what the model answered to every row.
        allow_unsandboxed_code: run the programs of code tasks even where this machine has no sandbox for
            them, with your own rights; where it has one, they run in it all the same. See docs/sandbox.md.
        code_workers: programs that each process runs at once; None: one a core, shared by the processes.
        progress: show a progress bar; None: where standard error is a terminal.
        lm_eval: tasks of the lm-evaluation-harness to evaluate each saved model on; None: none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    limit: int | None = Field(default=None, gt=0)
    every: int | None = Field(default=None, gt=0)
    every_limit: int | None = Field(default=None, gt=0)
    few_shot: int | None = Field(default=None, ge=0)
    batch_size: int = Field(default=32, gt=0)
    records: bool = True
    allow_unsandboxed_code: bool = False
    code_workers: int | None = Field(default=None, gt=0)
    progress: bool | None = None
    lm_eval: LmEvalOptions | None = None

    @field_validator("every_limit")
    @classmethod
    def _limits_something(cls, rows: int | None, info: ValidationInfo) -> int | None:
        if rows is not None and "every" in info.data and info.data["every"] is None:
            raise ValueError("nothing without evaluation.every, the steps between two scorings")
        return rows
