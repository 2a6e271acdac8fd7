"""A saved diagonal Fisher: fp32 in the layout of shards, one file per rank, read by any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_checked, write_checked
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.fingerprint import fingerprint
from sfa_hf.shards.folder import ShardFolder, save_shard_folder
from sfa_hf.shards.layout import parts

RECORD = "fisher.json"
_RIGHT = "restore it, or remove the folder to have it estimated again"


def save_fisher(
    folder: Path, engine: Engine, shards: Sequence[Shard], fisher: ShardBuffer, facts: Mapping[str, Any]
) -> None:
    """Save a Fisher and how it was estimated. Call it on every rank. The folder appears when it is complete.

    Args:
        folder: new folder, on a file system that all ranks share.
        engine: knows which ranks own distinct shards.
        shards: this rank's shards of the parameters.
        fisher: the Fisher, in the layout of ``shards``.
        facts: how it was estimated, as JSON values.

    Raises:
        ConfigError: it cannot be written, e.g. for lack of space.
    """
    digits = fisher.fingerprint(engine, shards)

    def finish(writing: Path) -> None:
        write_checked(writing / RECORD, {**facts, "fingerprint": digits})

    try:
        save_shard_folder(folder, engine, fisher.save, finish)
    except OSError as error:
        problem = f"the Fisher cannot be saved in {folder}: {error.strerror or error}"
        raise ConfigError("output_dir", problem, f"{fisher.nbytes} bytes of space for each rank") from error


class FisherFolder:
    """What :func:`save_fisher` saved.

    Args:
        folder: folder of the Fisher.

    Attributes:
        facts: how it was estimated.

    Raises:
        ConfigError: the Fisher does not exist or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.facts = read_checked(folder / RECORD, _RIGHT)
        self._files = ShardFolder(folder, "fisher", _RIGHT)

    def read(self, shard: Shard) -> Tensor:
        """Read the Fisher of one shard, or of a part of one.

        Raises:
            ConfigError: the files do not hold all values of the shard.
        """
        return self._files.read(shard)

    def check(self, engine: Engine) -> None:
        """Read the whole Fisher once and check its fingerprint. Call it on every rank.

        Raises:
            ConfigError: it is damaged or belongs to another model.
        """
        pieces = ((part, self.read(part)) for shard in engine.shards() for part in parts(shard))
        if fingerprint(engine, pieces) != self.facts["fingerprint"]:
            raise ConfigError(str(self._folder), "holds another Fisher than was written", _RIGHT)
