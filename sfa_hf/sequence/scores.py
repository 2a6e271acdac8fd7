"""One number for a whole sequence, from the score matrix."""

from __future__ import annotations

from collections.abc import Sequence


def summary(scores: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Summarise a finished sequence's score matrix.

    R[i][j] is the score on task j after training through task i; row 0 is before any training. With N tasks,
    j counted from 1:

    - average_accuracy = mean_j R[N][j]
    - learning_accuracy = mean_j R[j][j]
    - backward_transfer = mean_{j<N} (R[N][j] - R[j][j])  (GEM, arXiv 1706.08840)
    - forgetting = mean_{j<N} (max_{1<=l<N} R[l][j] - R[N][j])  (RWalk, arXiv 1801.10112)
    - forward_transfer = mean_{j>=2} (R[j-1][j] - R[0][j])  (GEM)

    Args:
        scores: N+1 rows of N scores.

    Returns:
        The five by name; the last three are None where N = 1, for then nothing could be forgotten.
    """
    count = len(scores[0])
    if len(scores) != count + 1:
        raise ValueError(f"a sequence of {count} tasks has {count + 1} rows of scores, not {len(scores)}")
    last = scores[count]
    learned = [scores[j + 1][j] for j in range(count)]
    past = range(count - 1)
    return {
        "average_accuracy": _mean(last),
        "backward_transfer": _mean([last[j] - learned[j] for j in past]),
        "forgetting": _mean([max(row[j] for row in scores[1:count]) - last[j] for j in past]),
        "forward_transfer": _mean([scores[j][j] - scores[0][j] for j in range(1, count)]),
        "learning_accuracy": _mean(learned),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
