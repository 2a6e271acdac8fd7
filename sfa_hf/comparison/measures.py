"""Numbers of one run, from its score matrix and, where they were run, its references'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Scores = Sequence[Sequence[float]]

APART = "single_task"
"""The method whose models are trained from the base model on one task each: nothing is there to forget."""
TOGETHER = "joint"
"""The method whose one model is trained on all tasks at once; each row of its scores is that model's."""


def measures(
    results: Mapping[str, Any], single: Mapping[str, Any] | None, joint: Mapping[str, Any] | None
) -> dict[str, float]:
    """Every number of a finished run that there is.

    R[i][j] is the score on task j after i tasks, tasks and rows counted from 1, row 0 before any training:

    - final.TASK: R[N][j], and average, their mean; learned.TASK: R[j][j];
    - new and past: R[N][N], and the mean of R[N][j] over j < N;
    - forgetting, learning_accuracy, backward_transfer: as in results.json;
    - retention = mean over j < N of (R[N][j] - R[0][j]) / (R_single[j] - R[0][j]), normalised: 1 where a task
      is known as well as if it were the only one; tasks that cannot be learnt alone are left out;
    - intransigence = mean over j of R_reference[j][j] - R[j][j]: how much less is learnt of a new task than
      by the reference: joint training on all tasks, or else single-task training (arXiv 1801.10112, whose
      reference for task j is trained on tasks 1 to j);
    - train_seconds, extra_bytes and stored_bytes, as in results.json.

    A run of single-task models has the score of each task's own model as its final one.

    Args:
        results: of the run.
        single: results of single-task training with the same seed.
        joint: results of joint training with the same seed.
    """
    scores, tasks = results["scores"], results["tasks"]
    apart = results["method"]["name"] == APART
    final = _learned(scores) if apart else list(scores[-1])
    found: dict[str, float | None] = {
        f"final.{task}": value for task, value in zip(tasks, final, strict=True)
    }
    found |= {f"learned.{task}": value for task, value in zip(tasks, _learned(scores), strict=True)}
    found |= {"average": _mean(final), "new": final[-1], "past": _mean(final[:-1])}
    found["learning_accuracy"] = results["summary"]["learning_accuracy"]
    if not apart:
        found |= {key: results["summary"][key] for key in ("forgetting", "backward_transfer")}
    if single is not None:
        pasts = list(zip(scores[0], final, _learned(single["scores"]), strict=True))[:-1]
        found["retention"] = _mean(
            [(end - base) / (alone - base) for base, end, alone in pasts if alone > base]
        )
    if (reference := joint or single) is not None and reference is not results:
        learned = zip(_learned(reference["scores"]), _learned(scores), strict=True)
        found["intransigence"] = _mean([theirs - ours for theirs, ours in learned])
    costs = ("train_seconds", "extra_bytes", "stored_bytes")
    found |= {key: results["cost"].get(key) for key in costs}
    return {key: value for key, value in found.items() if value is not None}


def _learned(scores: Scores) -> list[float]:
    """Each task's score right after its training."""
    return [row[index] for index, row in enumerate(scores[1:])]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
