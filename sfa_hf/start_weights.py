r"""\theta_o of a training that began from weights kept nowhere else: saved once, a file a rank."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.files import sync_folder
from sfa_hf.shard_file import ShardFile

FOLDER = "sfa_anchor"
_RIGHT = "anchor=FOLDER or Hub id of the model that this training began with"


def start_folder(output_dir: str, fingerprint: str) -> Path:
    """Where the start weights with this fingerprint are kept: a folder of another anchor is never taken."""
    return Path(output_dir) / FOLDER / fingerprint


def save_start_weights(folder: Path, engine: Engine, write: Callable[[Path], None]) -> None:
    """Save this rank's file, unless a lower rank holds the same shards; a collective call.

    The folder gets its name when every file in it is on the disk. One that is there already is left as it is:
    its name says what is in it.

    Args:
        folder: of :func:`start_folder`, on a file system that all ranks share.
        engine: which ranks own distinct shards.
        write: writes this rank's file.
    """
    rank, ranks = _place()
    writing = folder.with_suffix(".writing")
    found = folder.is_dir()
    if rank == 0:
        shutil.rmtree(writing, ignore_errors=True)
    _barrier()
    if found:
        return
    if engine.replica == 0:
        writing.mkdir(parents=True, exist_ok=True)
        write(writing / f"{rank:05d}-of-{ranks:05d}.safetensors")
    _barrier()
    if rank == 0:
        sync_folder(writing)
        writing.rename(folder)
        sync_folder(folder.parent)
    _barrier()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class StartWeights:
    """Saved start weights, open for a launch with any number of ranks: each reads only what it owns.

    Args:
        folder: as :func:`save_start_weights` made it.

    Raises:
        ConfigError: there is none, or a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not folder.is_dir():
            raise ConfigError("anchor", f"the start weights of this training are not in {folder}", _RIGHT)
        try:
            self._files = [ShardFile(path) for path in sorted(folder.glob("*.safetensors"))]
        except ValueError as error:  # a ConfigError, or JSON that is none
            raise ConfigError("anchor", f"{folder} is damaged: {error}", _RIGHT) from error

    def read(self, shard: Shard) -> Tensor:
        """Read one shard's values.

        Raises:
            ConfigError: the files do not hold all of it.
        """
        overlaps = [part for file in self._files if (part := file.overlap(shard))]
        if sum(values.numel() for _, values in overlaps) != shard.data.numel():
            raise ConfigError("anchor", f"{self._folder} does not hold all of {shard.name}", _RIGHT)
        whole = torch.empty(shard.data.numel(), dtype=overlaps[0][1].dtype if overlaps else torch.float32)
        for start, values in overlaps:
            whole[start : start + values.numel()] = values
        return whole


def _place() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
