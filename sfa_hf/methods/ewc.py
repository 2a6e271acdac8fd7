"""Elastic weight consolidation (arXiv 1612.00796), online (arXiv 1805.06370) or with a term for each task."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from transformers import TrainerCallback

from sfa_hf.callbacks.ewc import EWCCallback
from sfa_hf.errors import ConfigError
from sfa_hf.fisher.estimate import estimate_fisher
from sfa_hf.methods.base import CARRY, PLAIN, Method, Preparation, Stage
from sfa_hf.methods.taken import From
from sfa_hf.tasks import Row, Task, collator, encode

_logger = logging.getLogger(__name__)

FISHER = "fisher"
"""Folder, in a past task's, of its Fisher."""
FISHER_ROWS = 200


class EWC(Method, takes=From(EWCCallback, without=("anchor_dtype",))):
    r"""Trains on L + (\lambda/2) sum_i F_i (\theta_i - \theta_{o,i})^2, F the Fisher of the tasks before.

    F_j is the diagonal empirical Fisher at the model that task j left: the mean over rows of task j, with
    their own targets, of the squared gradient of a row's log-likelihood summed over its target's tokens. It
    is estimated before the training of task j + 1, without a penalty, and kept in task j's folder.

    Attributes:
        fisher_rows: rows of a task that F_j is estimated from, drawn once; "all"; or None for 200, and all of
            a task that has fewer.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = CARRY
    STATISTICS: ClassVar[int] = 1

    name: Literal["ewc"] = "ewc"
    fisher_rows: Annotated[int, Field(gt=0)] | Literal["all"] | None = None

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        for task in tasks[:-1]:
            rows = len(task.train_rows())
            if isinstance(self.fisher_rows, int) and self.fisher_rows > rows:
                problem = f"is {self.fisher_rows}, and task {task.name} has {rows} rows"
                raise ConfigError("fisher_rows", problem, f"at most {rows}, or all")

    @property
    def first_training(self) -> str | None:
        return PLAIN

    def prepare(self, preparation: Preparation) -> None:
        for past in preparation.stage.past:
            if not (past.folder / FISHER).exists():
                self._estimate(past, preparation)

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if not stage.past:
            return []
        past = [(str(each.folder / FISHER), str(each.model)) for each in stage.past]
        return [self.make(EWCCallback, past=past, anchor=stage.anchor)]

    def _estimate(self, past: Stage, preparation: Preparation) -> None:
        model, tokenizer = preparation.load(str(past.model))
        drawn = self._drawn(past)
        rows, report = encode(drawn, tokenizer, preparation.encoding)
        _logger.info("Fisher of %s: %s", past.task.name, report.summary())
        facts = {"task": past.task.name, "drawn": len(drawn), "of": len(past.task.train_rows())}
        estimate_fisher(
            model,
            preparation.arguments,
            rows,
            collator(tokenizer),
            folder=past.folder / FISHER,
            facts=facts,
        )

    def _drawn(self, past: Stage) -> list[Row]:
        rows = past.task.train_rows()
        wanted = len(rows) if self.fisher_rows == "all" else min(self.fisher_rows or FISHER_ROWS, len(rows))
        draw = random.Random(f"{past.seed} {past.task.name}")  # noqa: S311 - reproducible, not a secret
        return [rows[index] for index in sorted(draw.sample(range(len(rows)), wanted))]
