r"""Taking \theta_o: at the start of a training, and the very same one when it resumes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfa_hf.adapters.base_files import BaseFiles
from sfa_hf.adapters.files import AdapterFiles, find_adapter
from sfa_hf.anchor.factors import Factors
from sfa_hf.anchor.start_weights import FOLDER, StartWeights, save_start_weights, start_folder
from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.begin import refuse_infinite_values
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.model_files import AnchorFiles
from sfa_hf.shards.store import Store, open_store

_logger = logging.getLogger(__name__)

ANCHOR_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_Read = Callable[[Shard], Tensor]


@dataclass(frozen=True)
class AnchorRecord:
    """What a training's anchor was: a few words that every checkpoint carries.

    Attributes:
        source: the folder or Hub id; None for the weights at the start.
        revision: the commit that the Hub id stood for; None for a folder.
        dtype: as kept: "float32" or "bfloat16".
        fingerprint: of :func:`sfa_hf.shards.fingerprint.fingerprint`.
    """

    source: str | None
    revision: str | None
    dtype: str
    fingerprint: str

    def __str__(self) -> str:
        name = self.source or "the weights at its start"
        revision = f" at revision {self.revision}" if self.revision else ""
        return f"{name}{revision}, {self.dtype}, fingerprint {self.fingerprint}"


class AnchorTaker:
    """Finds, checks and keeps the anchor of one training.

    Args:
        source: None for the weights at the start, or a local folder or Hub id.
        device: name of the store that keeps it.
        dtype: "float32" or "bfloat16".
        output_dir: the training's.
        rank: this process.
        factors: of adapters that are merged as updates; what is taken fits their ``places``.
    """

    def __init__(
        self, source: str | None, device: str, dtype: str, output_dir: str, rank: int, *, factors: Factors
    ) -> None:
        self._source, self._device, self._dtype = source, device, dtype
        self.factors = factors
        self._output_dir, self._rank = output_dir, rank
        self._revision: str | None = None
        self._store: Store | None = None

    def take(
        self, engine: Engine, model: nn.Module, shards: Sequence[Shard]
    ) -> tuple[ShardBuffer, AnchorRecord]:
        """Take the anchor of a training that begins.

        Raises:
            ConfigError: the source does not fit the model, or there is no room.
        """
        read = from_every_process(lambda: self._reader(model, shards))
        return self._take(engine, shards, read)

    def take_again(
        self,
        engine: Engine,
        model: nn.Module,
        shards: Sequence[Shard],
        recorded: AnchorRecord | None,
        checkpoint: Path | None,
    ) -> tuple[ShardBuffer, AnchorRecord]:
        """Take the anchor of a training that resumes.

        Args:
            engine: where the weights live.
            model: the model in training.
            shards: what is anchored.
            recorded: what the checkpoint says that the anchor was.
            checkpoint: from which it resumes; None where the training keeps no folders.

        Raises:
            ConfigError: it cannot be had, or is another one.
        """
        read = from_every_process(
            lambda: (
                self._saved(recorded, checkpoint).read
                if self._source is None
                else self._reader(model, shards)
            )
        )
        theta_o, record = self._take(engine, shards, read)
        if recorded is None:
            _logger.warning("the checkpoint does not say what its anchor was: taking %s on trust", record)
        else:
            refuse_another(record, recorded)
        return theta_o, record

    def save(self, engine: Engine, theta_o: ShardBuffer, record: AnchorRecord) -> None:
        """Save start weights, so that the training can resume; a collective call.

        Raises:
            ConfigError: there is no room.
        """
        try:
            save_start_weights(start_folder(self._output_dir, record.fingerprint), engine, theta_o.save)
        except OSError as error:
            problem = f"the start weights cannot be saved there: {error.strerror or error}"
            right = f"{theta_o.nbytes} bytes of room on each rank, or save_anchor=False and no resuming"
            raise ConfigError("output_dir", problem, right) from error

    def release(self) -> None:
        """Give back what only this process used."""
        if self._store is not None:
            self._store.release()

    def _take(self, engine: Engine, shards: Sequence[Shard], read: _Read) -> tuple[ShardBuffer, AnchorRecord]:
        places = self.factors.places(shards)
        file = Path(self._output_dir) / FOLDER / f"in-use-{self._rank:05d}.safetensors"

        def fill() -> ShardBuffer:
            self._store = open_store(self._device, places, ANCHOR_DTYPES[self._dtype], file)
            return ShardBuffer(places, read, self._store)

        theta_o = from_every_process(fill)
        if self._source is not None:
            refuse_infinite_values(engine, ((b.shard, b.values) for b in theta_o.pieces(places)), "anchor")
        found = theta_o.fingerprint(engine, places)
        return theta_o, AnchorRecord(self._source, self._revision, self._dtype, found)

    def _reader(self, model: nn.Module, shards: Sequence[Shard]) -> _Read:
        if self._source is None:
            return attrgetter("data")
        files = anchor_files(self._source, model, self.factors)
        files.check(shards)
        self._revision = files.revision
        return files.read

    def _saved(self, recorded: AnchorRecord | None, checkpoint: Path | None) -> StartWeights:
        if recorded is None:
            problem = f"training resumes from {checkpoint}, whose weights are not theta_o"
            right = "anchor=FOLDER or Hub id of the model that this training began with"
            raise ConfigError("anchor", problem, right)
        if recorded.source is not None:
            raise ConfigError("anchor", f"None, but this training began with {recorded}", recorded.source)
        own = start_folder(self._output_dir, recorded.fingerprint)
        beside = start_folder(str(checkpoint.parent), recorded.fingerprint) if checkpoint else own
        return StartWeights(beside if beside.is_dir() else own)


def refuse_another(
    record: AnchorRecord, recorded: AnchorRecord, right: str = "that anchor, unchanged, or a new output_dir"
) -> None:
    """Refuse to go on with another anchor than the training began with.

    Args:
        record: what was taken now.
        recorded: what the training began with.
        right: what would be right.

    Raises:
        ConfigError: they differ.
    """
    if record.dtype != recorded.dtype:
        raise ConfigError(
            "anchor_dtype", f"{record.dtype}, but this training began with {recorded}", recorded.dtype
        )
    if record.fingerprint != recorded.fingerprint:
        problem = f"{record} is not the anchor that this training began with: {recorded}"
        raise ConfigError("anchor", problem, right)


def anchor_files(
    source: str, model: nn.Module, factors: Factors | None = None
) -> AnchorFiles | AdapterFiles | BaseFiles:
    r"""Open the files of a \theta_o: of a whole model, or of an adapter.

    Args:
        source: a local folder, or a Hub id.
        model: the model in training.
        factors: takes on the shapes of adapters of another rank; None where they may have none.

    Raises:
        ConfigError: it does not fit the model.
    """
    found = find_adapter(source)
    if found is None:
        return (
            BaseFiles(source, model, factors.groups)
            if factors and factors.groups
            else AnchorFiles(source, model)
        )
    adapter = AdapterFiles(*found, model, factors.groups if factors else ())
    if factors:
        factors.shapes = adapter.shapes
    return adapter


def recorded_anchor(saved: Any, options: dict[str, Any]) -> AnchorRecord | None:
    """Find what a checkpoint says of the anchor of the callback with these options.

    Args:
        saved: entry of ``TrainerState.stateful_callbacks``: one callback's state, a list of them, or None.
        options: constructor arguments that tell two callbacks of one training apart.
    """
    record = recorded_attribute(saved, options, "anchor_record")
    return AnchorRecord(**record) if record else None


def recorded_attribute(saved: Any, options: dict[str, Any], attribute: str) -> Any:
    """Find what a checkpoint says of one attribute of the callback with these options; None for nothing."""
    # Of two callbacks of a class, the Trainer keeps every state that they ever had: the last ones count.
    for state in reversed(saved) if isinstance(saved, list) else [saved]:
        if state and all(state["args"].get(key) == value for key, value in options.items()):
            value = state["attributes"].get(attribute)
            if value:
                return value
    return None
