"""pass@k, without bias."""

from __future__ import annotations

import math


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that of k programs drawn without replacement from ``samples`` at least one passes.

    1 - C(n - c, k) / C(n, k), eq. 1 of Chen et al. (arXiv 2107.03374), as their product, which neither
    overflows nor cancels: 1 - prod over i = n - c + 1, ..., n of (1 - k / i).

    Args:
        samples: n, programs made of the prompt.
        passed: c, how many of them pass.
        k: at most n.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {samples} samples, {passed} of them passed, is not defined")
    if samples - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - passed + 1, samples + 1))
