r"""\theta_o of a training that began from weights kept nowhere else: saved once, a file a rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfa_hf.distributed.processes import barrier
from sfa_hf.engines.base import Engine
from sfa_hf.errors import ConfigError
from sfa_hf.shards.folder import ShardFolder, save_shard_folder

FOLDER = "_sfa_anchor"
"""In ``output_dir``; the Trainer's upload to the Hub leaves out names that start with "_"."""
FORMER_FOLDER = "sfa_anchor"
"""Its name in trainings of earlier versions."""
_RIGHT = "anchor=FOLDER or Hub id of the model that this training began with"


def start_folder(output_dir: str, fingerprint: str) -> Path:
    """Where the start weights with this fingerprint are kept: a folder of another anchor is never taken."""
    before = Path(output_dir) / FORMER_FOLDER / fingerprint
    return before if before.is_dir() else Path(output_dir) / FOLDER / fingerprint


def save_start_weights(folder: Path, engine: Engine, write: Callable[[Path], None]) -> None:
    """Save this rank's file, unless a lower rank holds the same shards; a collective call.

    A folder that is there already is left as it is: its name says what is in it.

    Args:
        folder: of :func:`start_folder`, on a file system that all ranks share.
        engine: which ranks own distinct shards.
        write: writes this rank's file.
    """
    found = folder.is_dir()
    barrier()  # before any rank makes it
    if not found:
        save_shard_folder(folder, engine, write)


class StartWeights(ShardFolder):
    """Saved start weights, open for a launch with any number of ranks: each reads only what it owns.

    Args:
        folder: as :func:`save_start_weights` made it.

    Raises:
        ConfigError: there is none, or a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError("anchor", f"the start weights of this training are not in {folder}", _RIGHT)
        super().__init__(folder, "anchor", _RIGHT)
