"""How likely the model finds given continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sfa_hf.evaluation.batching import padded
from sfa_hf.evaluation.live import LiveModel


@dataclass(frozen=True)
class Continuation:
    """A prompt (at least one token) and what may follow it, as token ids."""

    prompt: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def log_likelihoods(live: LiveModel, batch: Sequence[Continuation]) -> list[float]:
    """Log-likelihoods ln P(target | prompt) in nats, by one forward pass for the batch.

    The log-softmax is taken in float32 and summed over the target's tokens in float64, whatever the model's
    dtype. Padding is on the right, where a causal model cannot see it.
    """
    ids, mask = padded([each.prompt + each.target for each in batch], live.pad_id, "right", live.device)
    # logits for the positions from the earliest target on: whole [batch, length, vocabulary] ones can be GBs
    first = min(len(each.prompt) for each in batch) - 1
    logits = live.model(
        input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first
    ).logits
    sums = []
    for row, each in enumerate(batch):
        start = len(each.prompt) - 1  # the logits at a position are about the next token
        of_target = logits[row, start - first : start - first + len(each.target)].float()
        target = torch.tensor(each.target, dtype=torch.long, device=of_target.device)
        found = of_target.log_softmax(-1).gather(-1, target[:, None])
        sums.append(found.double().sum().item())
    return sums
