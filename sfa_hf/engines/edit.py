"""Editing the weights of a model in training so that it lasts, under any engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines.attach import attach
from sfa_hf.engines.base import Shard
from sfa_hf.engines.wrapped import unwrapped


@contextmanager
def edit(model: nn.Module, optimizer: Any) -> Iterator[Sequence[Shard]]:
    """Open this rank's trainable weights for editing in place; a collective call.

    When the block ends, also by an exception, every other copy of the weights equals the shards: the
    low-precision weights that compute, persistent and gathered ones. The next step starts from them. Open it
    between two optimizer steps, on all processes.

    Example:
        >>> with sfa_hf.edit(model, optimizer) as shards:
        ...     for shard in shards:
        ...         shard.data.mul_(0.9)

    Args:
        model: in training, also in the wrapper of DDP, DeepSpeed or ``torch.compile``.
        optimizer: that steps it, in accelerate's wrapper or not; under DeepSpeed the one that
            ``deepspeed.initialize`` returned.

    Yields:
        The slices of trainable parameters that this rank owns: ``name``, ``data`` (one-dimensional, the fp32
        master weights where there are any), ``offset`` in the flattened parameter, ``shape`` of the whole.

    Raises:
        NotImplementedError: names a set-up whose weights cannot be edited, and what is supported.
    """
    engine = from_every_process(lambda: attach(unwrapped(model), optimizer))
    with torch.no_grad():
        try:
            yield engine.shards()
        finally:
            engine.publish()
