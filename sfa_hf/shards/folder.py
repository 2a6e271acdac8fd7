"""Values in the layout of shards, a file a rank in one folder: seen whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sfa_hf.distributed.processes import barrier, from_every_process, rank, world_size
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.files.folders import aside, put_in_place
from sfa_hf.shards.file import ShardFile


def save_shard_folder(
    folder: Path, engine: Engine, write: Callable[[Path], None], finish: Callable[[Path], None] | None = None
) -> None:
    """Save this rank's file, unless a lower rank holds the same shards; a collective call.

    The folder gets its name when every file in it is on the disk, and replaces an older one.

    Args:
        folder: on a file system that all ranks share.
        engine: which ranks own distinct shards.
        write: writes this rank's file.
        finish: puts what else belongs there into the folder; called on the first rank.

    Raises:
        OSError: on all ranks, if one of them cannot write.
    """
    writing = aside(folder)
    if rank() == 0:
        shutil.rmtree(writing, ignore_errors=True)
    barrier()

    def write_own() -> None:
        if engine.replica == 0:
            writing.mkdir(parents=True, exist_ok=True)
            write(writing / f"{rank():05d}-of-{world_size():05d}.safetensors")

    from_every_process(write_own)

    def place() -> None:
        if rank() == 0:
            if finish is not None:
                finish(writing)
            put_in_place(writing, folder)

    from_every_process(place)


class ShardFolder:
    """What :func:`save_shard_folder` made, open for any number of ranks: each reads only what it owns.

    Args:
        folder: exists.
        argument: the option that led to it, for errors.
        right: what would be right instead.

    Raises:
        ConfigError: a file in it is damaged.
    """

    def __init__(self, folder: Path, argument: str, right: str) -> None:
        self._folder, self._argument, self._right = folder, argument, right
        try:
            self._files = [ShardFile(path, argument) for path in sorted(folder.glob("*.safetensors"))]
        except ValueError as error:  # a ConfigError, or JSON that is none
            raise ConfigError(argument, f"{folder} is damaged: {error}", right) from error

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shapes of the full parameters, by name."""
        return {name: shape for file in self._files for name, shape in file.shapes.items()}

    def read(self, shard: Shard) -> Tensor:
        """Read one shard's values; of ``shard.data`` the size alone counts.

        Raises:
            ConfigError: the files do not hold all of it.
        """
        overlaps = [part for file in self._files if (part := file.overlap(shard))]
        if sum(values.numel() for _, values in overlaps) != shard.data.numel():
            raise ConfigError(
                self._argument, f"{self._folder} does not hold all of {shard.name}", self._right
            )
        whole = torch.empty(shard.data.numel(), dtype=overlaps[0][1].dtype if overlaps else torch.float32)
        for start, values in overlaps:
            whole[start : start + values.numel()] = values
        return whole
