"""Scores of all tasks while one of them trains, every n steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.score import evaluate_task
from sfa_hf.hf_trainer.log import TrainerLog
from sfa_hf.tasks import Encoding, Task

_SECONDS = "curve_seconds"
"""Tells a record of the curve from the other entries of the Trainer's log."""


class ScoreEvery(TrainerCallback):
    """Scores every task on the live model at the end of steps n, 2n, ..., and logs what it finds.

    Put it behind a method's callbacks, to score what a merge left, and before the one that seals checkpoints:
    the scores then lie in the log of the same step's checkpoint, and a resumed training goes on behind them.
    Training is not touched: see :func:`sfa_hf.evaluation.evaluate_task`.

    Args:
        tasks: to score, in order.
        tokenizer: the model's.
        encoding: how rows become tokens, as in training.
        options: whose ``every`` is n, and ``every_limit`` the rows of each task; None: as many as ``limit``.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        tokenizer: PreTrainedTokenizerBase,
        encoding: Encoding,
        options: EvaluationOptions,
    ) -> None:
        limit = options.every_limit or options.limit
        self._options = options.model_copy(update={"limit": limit, "records": False})
        self._tasks = tasks
        self._tokenizer = tokenizer
        self._encoding = encoding

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._options.every is None or state.global_step % self._options.every:
            return
        started = time.perf_counter()
        scores = [
            evaluate_task(kwargs["model"], self._tokenizer, task, self._encoding, self._options)
            for task in self._tasks
        ]
        found = {_key(score.task): score.value for score in scores}
        seconds = time.perf_counter() - started
        TrainerLog().write({**found, _SECONDS: seconds}, args, state, control)


def curve(
    history: Iterable[Mapping[str, Any]], task: str, steps: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The curve of one task's training, as in results.json, from the Trainer's log.

    Args:
        history: ``state.log_history`` after the training.
        task: that was trained.
        steps: of its training, T.
        names: of all tasks.
    """
    return [
        {
            "task": task,
            "step": entry["step"],
            "of": steps,
            "scores": {name: entry[_key(name)] for name in names},
            "seconds": entry[_SECONDS],
        }
        for entry in history
        if _SECONDS in entry
    ]


def _key(task: str) -> str:
    return f"eval_{task}"  # the prefix by which reporting integrations tell evaluation from training
