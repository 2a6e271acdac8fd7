"""Random answers that depend on their row alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor


class Draw(LogitsProcessor):
    """Draws each row's next token from its own random numbers, and makes it the only possible one.

    ``generate``'s sampling draws for a whole batch from one random state, so that an answer depends on the
    rows beside it. Here step t of row i takes the token at which the cumulated probability of the tokens,
    likeliest first, passes u[i, t]: an exact draw from softmax(logits / temperature), cut to ``top_p``.

    Args:
        seeds: one a row, each a sequence of numbers.
        steps: most tokens of an answer.
        temperature: above 0.
        top_p: in (0, 1]: the fewest likeliest tokens that have this probability together are drawn from.
        prompt_length: columns of ``input_ids`` before the first generated token.
    """

    def __init__(
        self,
        seeds: Sequence[Sequence[int]],
        steps: int,
        temperature: float,
        top_p: float,
        prompt_length: int,
    ) -> None:
        drawn = [np.random.default_rng(seed).random(steps) for seed in seeds]
        self._uniform = torch.from_numpy(np.stack(drawn))  # [rows, steps], float64
        self._temperature, self._top_p = temperature, top_p
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, tokens] with all but the drawn token at minus infinity."""
        step = input_ids.shape[1] - self._prompt_length
        ordered, tokens = torch.softmax(scores.float() / self._temperature, dim=-1).sort(
            dim=-1, descending=True, stable=True
        )
        cumulated = ordered.double().cumsum(-1)
        kept = (cumulated - ordered < self._top_p).sum(-1, keepdim=True)  # how many tokens are drawn from
        total = cumulated.gather(-1, kept - 1)
        reached = self._uniform[:, step : step + 1].to(scores.device) * total
        place = torch.searchsorted(cumulated, reached, right=True).minimum(kept - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens.gather(-1, place), 0.0)
