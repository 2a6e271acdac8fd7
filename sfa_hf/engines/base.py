"""The seam: what every training engine answers for one trained model.

Which slices of which parameters does this rank own, and how do the model's other copies learn that they
changed? Everything that edits weights or gradients during training (SFA, its Fisher-weighted form, L2, EWC,
telemetry) is written against :class:`Engine` and knows nothing of ZeRO or FSDP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Shard:
    """This rank's authoritative slice of one trainable parameter.

    Attributes:
        name: the parameter's name in ``named_parameters()`` of the unwrapped model; a tied parameter appears
            once, under its first name.
        data: one-dimensional view of the slice that the optimizer steps (the fp32 master weights where there
            are any), without padding; edited in place.
        offset: index of ``data[0]`` in the flattened full parameter.
        shape: shape of the full parameter.
    """

    name: str
    data: Tensor
    offset: int
    shape: torch.Size


class Handle:
    """Undoes a registration, once."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def remove(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None


class Engine(ABC):
    """Where the weights in training live. One subclass per engine, chosen by :func:`sfa_hf.engines.attach`.

    A file in this folder is found by its place; one of ``engines/deepspeed/`` where DeepSpeed trains.

    Attributes:
        name: "plain", "ddp", "zero0" ... "zero3", "fsdp2": as written to results.json.
        LAST: whether it only answers for what no other engine fits.
    """

    name: str
    LAST: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        """Answer for a model that it fits; raises NotImplementedError where a detail is not supported."""

    @classmethod
    @abstractmethod
    def fits(cls, model: nn.Module, optimizer: Any) -> bool:
        """Whether it is the engine of a model.

        Args:
            model: unwrapped from DDP's or DeepSpeed's module.
            optimizer: what steps it, in accelerate's wrapper or not.
        """

    @property
    def replica(self) -> int:
        """Which copy of its shards this rank holds: 0 for the first, and everywhere without replicas."""
        return 0

    @abstractmethod
    def shards(self) -> Sequence[Shard]:
        """The slices of trainable parameters that this rank owns, in the model's order.

        Over all ranks they cover each trainable parameter; under ZeRO and FSDP exactly once, under DDP once
        per rank (replicas, which stay equal because every rank computes the same).
        """

    @abstractmethod
    def optimizer_state(self, key: str, shard: Shard) -> Tensor | None:
        """The same slice of the optimizer's per-parameter state, e.g. ``"exp_avg_sq"``.

        None before the first step, and where the optimizer keeps no such state.
        """

    @abstractmethod
    def optimizer_steps(self, shard: Shard) -> int | None:
        """How many steps the optimizer's state of the shard has seen, by its own count; None before any.

        It can be fewer than the training took: none is counted for a parameter without a gradient, nor where
        fp16 overflows.
        """

    @abstractmethod
    def before_step(self, fn: Callable[[Engine], None]) -> Handle:
        """Run ``fn(engine)`` once per optimizer step, with reduced gradients in place, before clipping."""

    @abstractmethod
    def gradient(self, shard: Shard) -> Tensor | None:
        """Inside ``fn`` of :meth:`before_step`: the same slice of the reduced gradient, without loss scale.

        It may be edited in place. None if the parameter has no gradient in this step.
        """

    @abstractmethod
    def publish(self) -> None:
        """Make every other copy of the weights (low-precision, persistent, replicated) equal the shards."""

    @abstractmethod
    def sum_over_shards(self, values: Tensor) -> Tensor:
        """Sum a small float64 vector of per-rank totals over the ranks that own distinct shards."""
