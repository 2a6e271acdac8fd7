"""Which sequences go through the model together, and as which tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first: little padding, and no surprise at the end.

    The batches depend on the lengths and ``batch_size`` alone, never on how many processes share them: a
    sum's last bits depend on the batch's shape, and so every world size gives the same numbers, bit for bit.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def padded(
    sequences: Sequence[Sequence[int]], pad_id: int, side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [batch, longest] and int64; padding on ``side`` is masked out."""
    rows = [torch.tensor(sequence, dtype=torch.long) for sequence in sequences]
    pad = partial(pad_sequence, batch_first=True, padding_side=side)
    ids, mask = pad(rows, padding_value=pad_id), pad([torch.ones_like(row) for row in rows])
    return ids.to(device), mask.to(device)
