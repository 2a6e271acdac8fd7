r"""\bar F on the disk: the second moments of the tasks so far, a file a rank, for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfa_hf.distributed.seeds import seed_from
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_checked, write_checked
from sfa_hf.shards import file as shard_file
from sfa_hf.shards.fingerprint import fingerprint
from sfa_hf.shards.folder import ShardFolder, save_shard_folder

FOLDER = "_second_moments"
"""In a training's ``output_dir``; the Trainer's upload to the Hub leaves out names that start with "_"."""
FORMER_FOLDER = "second_moments"
"""Its name in trainings of earlier versions."""
_FACTS = "facts.json"
ARGUMENT = "anchor_moments"
RIGHT = (
    f"the {FOLDER} folder that SecondMomentsCallback or SFACallback(rule='fisher') left at the end of "
    "the task before, that of estimate_second_moments from rows of it, or 'constant'"
)


@dataclass(frozen=True)
class MomentFacts:
    r"""What a folder of second moments says of itself.

    Attributes:
        fingerprint: of the values, over all ranks.
        elements: how many there are.
        tasks: over how many tasks' moments \bar F goes.
        steps: of the last of these tasks, by the optimizer's count.
        beta2: \beta_2 of its Adam.
        alpha: weight of its F in \bar F.
    """

    fingerprint: str
    elements: int
    tasks: int
    steps: int
    beta2: float
    alpha: float


class MomentFolder:
    """Second moments that a training left, open for any number of ranks.

    Args:
        folder: as :func:`save_moments` made it.

    Attributes:
        facts: what it says of itself.

    Raises:
        ConfigError: it is none, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(ARGUMENT, f"there is no folder {folder}", RIGHT)
        try:
            self.facts = MomentFacts(**read_checked(folder / _FACTS, RIGHT))
        except (ConfigError, TypeError) as error:
            raise ConfigError(ARGUMENT, f"{folder} holds no second moments: {error}", RIGHT) from error
        self._folder = folder
        self._shards = ShardFolder(folder, ARGUMENT, RIGHT)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shapes of the parameters, by name."""
        return self._shards.shapes

    def read(self, shard: Shard) -> Tensor:
        """Read one shard's values, in fp32."""
        self._check_shape(shard)
        return self._shards.read(shard)

    def read_shuffled(self, shard: Shard, seed: int) -> Tensor:
        """Read one shard's values of the parameter with its entries in a random order.

        The order depends on the seed and the name alone. Each rank reads the whole parameter for it, so this
        is a control for studies, not for the largest models.
        """
        self._check_shape(shard)
        numel = shard.shape.numel()
        whole = self._shards.read(
            Shard(shard.name, torch.empty(numel, device="meta"), offset=0, shape=shard.shape)
        )
        generator = torch.Generator().manual_seed(seed_from(seed, shard.name))
        order = torch.randperm(numel, generator=generator)
        return whole[order[shard.offset : shard.offset + shard.data.numel()]]

    def _check_shape(self, shard: Shard) -> None:
        shape = self.shapes.get(shard.name)
        if shape is None:
            raise ConfigError(ARGUMENT, f"{self._folder} has no {shard.name}", RIGHT)
        if shape != list(shard.shape):
            problem = f"{self._folder} has {shard.name} of shape {shape}, the model {list(shard.shape)}"
            raise ConfigError(ARGUMENT, problem, "second moments of the same model")


def moments_in(output_dir: Path) -> Path:
    """Where a training that has ended left its second moments."""
    before = output_dir / FORMER_FOLDER
    return before if before.is_dir() and not (output_dir / FOLDER).is_dir() else output_dir / FOLDER


def find_moments(given: str | None, anchor: str | None) -> Path:
    """Find the folder: the one given, or in or beside the anchor's.

    Raises:
        ConfigError: there is none.
    """
    if given is not None:
        return Path(given).expanduser()
    if anchor is None:
        raise ConfigError(ARGUMENT, "None, and anchor=None is no folder to look beside", RIGHT)
    folder = Path(anchor).expanduser().resolve()
    for place in map(moments_in, (folder, folder.parent)):
        if place.is_dir():
            return place
    raise ConfigError(ARGUMENT, f"None, and there is no {FOLDER} in or beside {anchor}", RIGHT)


def save_moments(
    folder: Path,
    engine: Engine,
    shards: Sequence[Shard],
    values: Callable[[Shard], Tensor],
    **facts: Any,
) -> None:
    """Save second moments shard by shard, in place of an older folder; a collective call.

    Args:
        folder: on a file system that all ranks share.
        engine: which ranks own distinct shards.
        shards: of this rank.
        values: gives a shard's, in fp32; asked twice.
        **facts: those of :class:`MomentFacts` that only the caller knows.

    Raises:
        ConfigError: there is no room.
    """
    found = fingerprint(engine, ((shard, values(shard)) for shard in shards))
    local = sum(shard.data.numel() for shard in shards)
    elements = int(engine.sum_over_shards(torch.tensor([local], dtype=torch.float64)).item())
    known = asdict(MomentFacts(fingerprint=found, elements=elements, **facts))

    def write(path: Path) -> None:
        shard_file.write(path, shards, map(values, shards), torch.float32)

    try:
        save_shard_folder(folder, engine, write, lambda place: write_checked(place / _FACTS, known))
    except OSError as error:
        problem = f"the second moments cannot be saved in {folder}: {error.strerror or error}"
        raise ConfigError("output_dir", problem, f"{4 * local} bytes of room on each rank") from error
