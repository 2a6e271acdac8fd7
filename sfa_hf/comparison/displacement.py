"""How far each task moved a run's weights: ||theta_k - theta_{k-1}||_2, from the saved models."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from sfa_hf.checkpoints.folder import SavedModel, open_model
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_json, write_json
from sfa_hf.files.safetensors_slices import FLOATS, Stored

logger = logging.getLogger(__name__)

FILE = "displacement.json"
_BLOCK = 2**20
"""Entries read at a time: two blocks in float64 are 16 MiB, whatever the model's size."""


def displacements(folder: Path, tasks: Sequence[str]) -> list[float] | None:
    """Distances between the models of tasks k and k-1 of a finished run, for k from the second task on.

    Worked out once, and kept in the run's folder as displacement.json.

    Returns:
        N - 1 distances; None where the models are no longer there.
    """
    kept = folder / FILE
    if kept.is_file():
        found: dict[str, Any] = read_json(kept, "delete it: it is made again")
        return list(found["displacement"])
    models = [folder / f"{index}-{task}" / "model" for index, task in enumerate(tasks)]
    try:
        distances = [distance(*pair) for pair in pairwise(models)]
    except ConfigError as error:
        logger.warning("displacements of %s are left out: %s", folder, error)
        return None
    write_json(kept, {"tasks": list(tasks[1:]), "displacement": distances})
    return distances


def distance(first: Path, second: Path) -> float:
    """||theta - theta'||_2 of two saved models, summed in float64, a block of each at a time.

    Raises:
        ConfigError: a folder holds no model, or the two have other tensors.
    """
    with ExitStack() as stack:
        one, other = open_model(str(first), str(first), stack), open_model(str(second), str(second), stack)
        return math.sqrt(sum(_squares(*pair) for pair in _pairs(one, other)))


def _pairs(first: SavedModel, second: SavedModel) -> Iterator[tuple[Stored, Stored]]:
    ours, theirs = _weights(first), _weights(second)
    for name in ours.keys() | theirs.keys():
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            problem = f"{name} is not the same tensor as in {first.folder}"
            raise ConfigError(str(second.folder), problem, "two models of one architecture")
        yield ours[name], theirs[name]


def _weights(model: SavedModel) -> dict[str, Stored]:
    return {name: tensor for name, tensor in model.tensors.items() if tensor.dtype in FLOATS}


def _squares(first: Stored, second: Stored) -> float:
    total = 0.0
    for start in range(0, first.numel, _BLOCK):
        end = min(start + _BLOCK, first.numel)
        moved = first.read(start, end).to(torch.float64).sub_(second.read(start, end))
        total += float(moved.square_().sum())
    return total
