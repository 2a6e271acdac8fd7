"""Which files of a folder hold a model's weights: those that ``from_pretrained`` reads, none outside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from sfa_hf.errors import ConfigError
from sfa_hf.files.regular import json_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SAVED = "a folder that save_pretrained wrote, with its weights in safetensors"
_UNBROKEN = "an unbroken index file"


def weight_files(folder: Path, key: str) -> list[Path]:
    """The safetensors files of a saved model.

    ``model.safetensors`` before the shards of an index, as in ``from_pretrained``.

    Args:
        folder: of the model.
        key: the config key that names it, for errors.

    Raises:
        ConfigError: there are none, or the index names what lies outside the folder.
    """
    config = folder / "config.json"
    if config.is_file() and "transformers_weights" in json_object(config, key, SAVED):
        raise ConfigError(key, f"{config} names its own transformers_weights", SAVED)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        parts = index_parts(folder / INDEX, key)
        for part in parts:
            _refuse_outside(folder, part, key)
        return [folder / part for part in parts]
    pickled = " (a pickled .bin file is not read)" if list(folder.glob("*.bin")) else ""
    raise ConfigError(key, f"{folder} has no weights{pickled}", SAVED)


def index_parts(index: Path, key: str) -> list[str]:
    """Names of the files that an index lists, in order.

    Raises:
        ConfigError: it is not a safetensors index, or a name is not that of a safetensors file below it.
    """
    named = json_object(index, key, _UNBROKEN).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ConfigError(key, f"{index} is not a safetensors index: it has no weight_map", _UNBROKEN)
    parts = sorted(set(named.values()))
    for part in parts:
        path = PurePosixPath(part)
        if path.is_absolute() or ".." in path.parts or "\0" in part or path.suffix != ".safetensors":
            raise ConfigError(key, f"{index} names {part!r}", "names of safetensors files in its own folder")
    return parts


def _refuse_outside(folder: Path, part: str, key: str) -> None:
    """Links may lead to the blobs of the Hub's cache, where the folder is a snapshot in it."""
    inside = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        inside.append(folder.resolve().parents[1] / "blobs")
    try:
        where = (folder / part).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(key, f"{folder} has no {part}, which its {INDEX} names", SAVED) from error
    if not any(where.is_relative_to(place) for place in inside):
        raise ConfigError(key, f"{folder / part} is a link out of its folder", "the file itself")
    if not where.is_file():
        raise ConfigError(key, f"{folder / part} is not a regular file", SAVED)
