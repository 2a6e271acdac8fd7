r"""\bar F_o of one training: the second moments of the tasks before, and what the next training will find."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.moments.current import SecondMoments
from sfa_hf.moments.folder import ARGUMENT, FOLDER, RIGHT, MomentFolder, find_moments, save_moments
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.layout import by_device
from sfa_hf.shards.store import Store, open_store

_logger = logging.getLogger(__name__)

CONSTANT = "constant"


@dataclass(frozen=True)
class MomentsRecord:
    r"""What a training's \bar F_o was: a few words that every checkpoint carries.

    Attributes:
        source: the folder, or "constant".
        shuffle: seed of the shuffled control; None for none.
        fingerprint: of \bar F_o as it is used; None for "constant".
    """

    source: str
    shuffle: int | None
    fingerprint: str | None

    def __str__(self) -> str:
        if self.fingerprint is None:
            return self.source
        shuffled = "" if self.shuffle is None else f", shuffled with seed {self.shuffle}"
        return f"{self.source}{shuffled}, fingerprint {self.fingerprint}"


class AnchorMoments:
    r"""Finds, checks, keeps and renews \bar F_o.

    Args:
        given: a folder, "constant", or None to look in and beside the anchor's folder.
        anchor: the anchor's folder, or None.
        shuffle: seed of the shuffled control; None for none.
        output_dir: the training's.

    Raises:
        ConfigError: there are no second moments, or they lie where this training will save its own.
    """

    def __init__(self, given: str | None, anchor: str | None, shuffle: int | None, output_dir: str) -> None:
        self._shuffle, self._output_dir = shuffle, Path(output_dir)
        self._source = CONSTANT if given == CONSTANT else str(find_moments(given, anchor))
        self._folder = None if given == CONSTANT else MomentFolder(Path(self._source))
        self._store: Store | None = None
        self._refuse_own_place()

    def take(
        self, engine: Engine, shards: Sequence[Shard], device: str, rank: int
    ) -> tuple[ShardBuffer | None, MomentsRecord]:
        r"""Read \bar F_o in the layout of the shards; a collective call. None for "constant".

        Args:
            engine: where the weights live.
            shards: what is anchored.
            device: name of the store that keeps it.
            rank: this process.

        Raises:
            ConfigError: the moments do not fit the model, or have changed since they were written.
        """
        if self._folder is None:
            return None, MomentsRecord(CONSTANT, self._shuffle, None)
        file = self._output_dir / f"{FOLDER}.in-use" / f"{rank:05d}.safetensors"

        def fill() -> ShardBuffer:
            self._store = open_store(device, shards, torch.float32, file)
            return ShardBuffer(shards, self._read, self._store)

        before = from_every_process(fill)
        found = before.fingerprint(engine, shards)
        self._check_whole(engine, shards, found)
        return before, MomentsRecord(self._source, self._shuffle, found)

    def save(self, engine: Engine, shards: Sequence[Shard], moments: SecondMoments, beta: float) -> None:
        r"""Save \beta \bar F_o + (1 - \beta) F in ``output_dir``; F after "constant". A collective call.

        Raises:
            ConfigError: there is no room.
        """
        folder, alpha = self._folder, 1 - beta

        def renewed(shard: Shard) -> Tensor:
            f = moments.of_shard(shard)
            return f if folder is None else folder.read(shard).to(f.device).lerp_(f, alpha)

        save_moments(
            self._output_dir / FOLDER,
            engine,
            by_device(shards),
            renewed,
            tasks=1 if folder is None else folder.facts.tasks + 1,
            steps=moments.steps(shards),
            beta2=moments.decay,
            alpha=1.0 if folder is None else alpha,
        )

    def release(self) -> None:
        """Give back what only this process used."""
        if self._store is not None:
            self._store.release()

    def _refuse_own_place(self) -> None:
        """What is saved at the end would replace them: started again, a task would count twice."""
        if self._folder is not None and Path(self._source).resolve() == (self._output_dir / FOLDER).resolve():
            problem = f"{self._source} is where this training will save its own"
            raise ConfigError(ARGUMENT, problem, "another output_dir than theirs")

    def _read(self, shard: Shard) -> Tensor:
        assert self._folder is not None
        return (
            self._folder.read(shard)
            if self._shuffle is None
            else self._folder.read_shuffled(shard, self._shuffle)
        )

    def _check_whole(self, engine: Engine, shards: Sequence[Shard], found: str) -> None:
        """Compare the fingerprint, where all that was saved is used, in its order."""
        assert self._folder is not None
        local = torch.tensor([sum(shard.data.numel() for shard in shards)], dtype=torch.float64)
        elements = int(engine.sum_over_shards(local).item())
        facts = self._folder.facts
        if self._shuffle is None and elements == facts.elements and found != facts.fingerprint:
            problem = f"{self._source} has changed: fingerprint {found}, written with {facts.fingerprint}"
            raise ConfigError(ARGUMENT, problem, RIGHT)


def refuse_other_moments(taken: dict[str, Any], recorded: dict[str, Any] | None) -> None:
    r"""Refuse to resume with another \bar F_o than the training began with.

    Args:
        taken: the record of what was taken now.
        recorded: what the checkpoint says; None for nothing.

    Raises:
        ConfigError: they differ.
    """
    record = MomentsRecord(**taken)
    if recorded is None:
        _logger.warning(
            "the checkpoint does not say what its second moments were: taking %s on trust", record
        )
        return
    began = MomentsRecord(**recorded)
    if (record.fingerprint, record.shuffle) != (began.fingerprint, began.shuffle):
        problem = f"{record} are not the second moments that this training began with: {began}"
        raise ConfigError(ARGUMENT, problem, "those, unchanged, or a new output_dir")
