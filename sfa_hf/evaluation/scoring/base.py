"""What the kinds of scoring share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.batching import length_sorted
from sfa_hf.evaluation.live import LiveModel
from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.sharing import progress_bar, run_shared
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.encoding import Encoding
from sfa_hf.tasks.task import Row

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Job:
    """Rows to put to a model, and how."""

    task: str
    rows: Sequence[Row]
    scoring: Scoring
    live: LiveModel
    encoding: Encoding
    options: EvaluationOptions

    def run(self, lengths: Sequence[int], step: Callable[[Sequence[int]], Sequence[Answer]]) -> list[Answer]:
        """``step`` on batches of the indices of ``lengths``, shared among the processes; results in order."""
        with progress_bar(self.task, len(lengths), self.options.progress) as bar:
            batches = length_sorted(lengths, self.options.batch_size)
            return run_shared(batches, step, in_step=self.live.sharded, bar=bar)


@dataclass(frozen=True)
class Asked(Generic[Answer]):
    """One answer a row, and how many prompts were too long and lost their beginning."""

    answers: list[Answer]
    prompts_cut: int


@dataclass(frozen=True)
class Judged:
    """A task's score.

    Attributes:
        value: the primary metric, higher is better.
        stderr: its standard error.
        metrics: all metrics by name.
        records: what the model made of each row, ready for JSON.
    """

    value: float
    stderr: float
    metrics: dict[str, float]
    records: list[dict[str, Any]]


class Kind(Protocol):
    """A module of this folder, found by its place; its name is the ``kind`` of a task's scoring.

    Attributes:
        METRICS: what ``metric`` may be; the first is the default.
    """

    METRICS: tuple[str, ...]

    def ask(self, job: Job) -> Asked[Any]: ...

    def judge(self, task: str, rows: Sequence[Row], answers: Sequence[Any], scoring: Scoring) -> Judged: ...


def no_number(task: str, problem: str) -> ConfigError:
    """What to raise where a model has no score on a task: it computes NaN or infinity."""
    right = "a model that computes finite numbers; one that has diverged is trained again into another folder"
    return ConfigError(task, problem, right)
