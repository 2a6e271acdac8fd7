"""Draws follow the distribution they should, and depend on their own seed alone."""

from __future__ import annotations

import numpy as np
import torch

from sfa_hf.evaluation.sampling import Draw

LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.3, -torch.inf, 1.1])
DRAWS = 6_000


def drawn(temperature: float, top_p: float, seed: int = 0) -> np.ndarray:
    """How often each token is drawn in the first step, each row from a seed of its own."""
    draw = Draw([(seed, row) for row in range(DRAWS)], 1, temperature, top_p, prompt_length=3)
    scores = draw(torch.zeros(DRAWS, 3, dtype=torch.long), LOGITS.expand(DRAWS, -1))
    assert torch.isfinite(scores).sum(-1).eq(1).all()
    return np.bincount(scores.argmax(-1).numpy(), minlength=len(LOGITS))


def fits(counts: np.ndarray, expected: torch.Tensor) -> bool:
    """Every token's count within five standard deviations: a right sampler fails three times in a million."""
    p = (expected / expected.sum()).double().numpy()
    assert not counts[p == 0].any(), "a token that cannot be drawn was"
    return bool((np.abs(counts - DRAWS * p) <= 5 * np.sqrt(DRAWS * p * (1 - p))).all())


def test_tokens_are_drawn_from_the_softmax_at_a_temperature() -> None:
    for temperature in (0.5, 1.0, 3.0):
        assert fits(drawn(temperature, 1.0), torch.softmax(LOGITS / temperature, -1))
    assert not fits(drawn(0.5, 1.0), torch.softmax(LOGITS, -1))


def test_top_p_keeps_the_fewest_likeliest_tokens_that_have_it() -> None:
    probabilities = torch.softmax(LOGITS, -1)  # 0.53 and 0.22 for tokens 2 and 5
    kept = torch.zeros_like(probabilities)
    kept[[2, 5]] = probabilities[[2, 5]]
    assert fits(drawn(1.0, 0.6), kept)
    assert drawn(1.0, 0.01)[2] == DRAWS


def test_a_row_draws_the_same_whatever_is_beside_it() -> None:
    seeds, ids = [(0, row) for row in range(6)], torch.zeros(6, 4, dtype=torch.long)
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    together = Draw(seeds, 2, 1.0, 0.9, prompt_length=3)(ids, logits)
    for row in (0, 5):
        alone = Draw(seeds[row : row + 1], 2, 1.0, 0.9, 3)(ids[:1], logits[row : row + 1])
        assert torch.equal(alone[0], together[row])
    assert (drawn(1.0, 1.0, seed=1) != drawn(1.0, 1.0)).any()
