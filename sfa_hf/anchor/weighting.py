r"""How much \theta_o weighs at the merges of a training: the same everywhere, or as a subclass says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.shards.buffer import Block


@dataclass(frozen=True)
class Training:
    """What a weighting is told of the training that begins.

    Attributes:
        engine: where the weights live.
        optimizer: that steps them, in any wrapper.
        names: of all merged parameters, in one order on all ranks.
        shards: those of this rank.
        output_dir: the training's.
        rank: this process.
    """

    engine: Engine
    optimizer: Any
    names: Sequence[str]
    shards: Sequence[Shard]
    output_dir: str
    rank: int


class Weights:
    r"""The anchor's weights at one merge: \beta for every entry.

    Attributes:
        beta: \beta.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def of(self, block: Block) -> float | Tensor:  # noqa: ARG002 - the same for all
        """The weight for a block: one number, or in fp64 one per entry.

        Asked once per block, in the buffer's order; valid until the next call.
        """
        return self.beta

    def means(self) -> Mapping[str, float]:
        """What is logged of them after the merge, by the part of the model; a collective call."""
        return {}


class Weighting:
    r"""Gives the weights of one merge after another. This one: \beta for every entry of every merge.

    A subclass overrides what it changes. ``check`` is called before anything is read, ``begin`` when
    \theta_o is taken, ``check_record`` after it at a resume, ``at_merge`` at each merge, ``end`` after the
    last step, and ``release`` then and after a ``begin`` that failed.

    Attributes:
        nbytes: bytes that it keeps on this rank.
        record: what a checkpoint keeps of it; None for nothing.
    """

    nbytes = 0
    record: dict[str, Any] | None = None

    def check(self, optimizer: Any) -> None:
        """Raise NotImplementedError for an optimizer that it cannot work with."""

    def begin(self, training: Training) -> None:
        """Take what it needs; a collective call.

        Raises:
            ConfigError: it cannot be had.
        """

    def check_record(self, recorded: dict[str, Any] | None) -> None:
        """Refuse to resume with other than the training began with.

        Args:
            recorded: the ``record`` that the checkpoint kept; None for nothing.

        Raises:
            ConfigError: they differ.
        """

    def prefetch(self, shards: Sequence[Shard]) -> None:
        """Start to bring what the next merge reads to the device."""

    def at_merge(self, shards: Sequence[Shard], beta: float) -> Weights:  # noqa: ARG002 - the same for all
        r"""The weights of a merge that begins; a collective call.

        Args:
            shards: of this rank.
            beta: \beta.
        """
        return Weights(beta)

    def end(self, shards: Sequence[Shard], beta: float) -> None:
        """Leave what the next training needs; a collective call."""

    def release(self) -> None:
        """Give back what only this process used."""
