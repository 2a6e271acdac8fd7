"""How likely the model finds given continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfa_hf.evaluation.batching import padded
from sfa_hf.evaluation.live import LiveModel


@dataclass(frozen=True)
class Continuation:
    """A prompt (at least one token) and what may follow it, as token ids."""

    prompt: list[int]
    target: list[int]

    @property
    def read(self) -> list[int]:
        """The tokens that the model must see: all but the last of the target."""
        return self.prompt + self.target[:-1]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def same_read(continuations: Sequence[Continuation]) -> list[list[int]]:
    """Indices of the continuations, those together for which the model reads the same tokens.

    One forward pass serves them all: " Yes" and " No" after the same question, one token each.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, each in enumerate(continuations):
        groups.setdefault(tuple(each.read), []).append(index)
    return list(groups.values())


def log_likelihoods(live: LiveModel, batch: Sequence[Sequence[Continuation]]) -> list[list[float]]:
    """Log-likelihoods ln P(target | prompt) in nats, by one forward pass for the batch.

    The log-softmax is taken in float32 and summed over the target's tokens in float64, whatever the model's
    dtype. Padding is on the right, where a causal model cannot see it.

    Args:
        live: the model.
        batch: groups of continuations with the same :attr:`Continuation.read`.

    Returns:
        One list a group, in its order.
    """
    ids, mask = padded([group[0].read for group in batch], live.pad_id, "right", live.device)
    # logits for the positions from the earliest target on: whole [batch, length, vocabulary] ones can be GBs
    first = min(len(each.prompt) for group in batch for each in group) - 1
    logits = live.model(
        input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first
    ).logits
    return [[_total(logits[row], first, each) for each in group] for row, group in enumerate(batch)]


def _total(logits: Tensor, first: int, each: Continuation) -> float:
    """Of one row's logits [positions from ``first`` on, vocabulary]."""
    start = len(each.prompt) - 1 - first  # the logits at a position are about the next token
    of_target = logits[start : start + len(each.target)].float()
    target = torch.tensor(each.target, dtype=torch.long, device=of_target.device)
    found = of_target.log_softmax(-1).gather(-1, target[:, None])
    return found.double().sum().item()
