"""A new model folder: written in any order and by any thread, and seen whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from sfa_hf.errors import ConfigError
from sfa_hf.files import folders
from sfa_hf.files.atomic import write_json
from sfa_hf.files.safetensors_slices import item_bytes
from sfa_hf.files.weight_files import INDEX

_PATTERN = "model{suffix}.safetensors"
_ALIGNMENT = 8  # of the data in a safetensors file
TensorSpec = tuple[str, tuple[int, ...]]
"""Dtype as safetensors calls it, and shape."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``out`` when the body ends, and vanishes when it fails.

    All its files are on disk before it has its name.

    Raises:
        ConfigError: ``out`` exists, or cannot be written.
    """
    refuse_existing(out)
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(folders.new_folder(out))
        except OSError as error:
            raise _unwritable(out, error) from error
        yield temporary
        refuse_existing(out)  # another merge's, which was quicker


def refuse_existing(out: Path) -> None:
    """Raise ConfigError where there is something already."""
    if out.exists() or out.is_symlink():
        raise ConfigError("OUT_DIR", f"{out} exists", "a new folder")


def _unwritable(out: Path, error: OSError) -> ConfigError:
    return ConfigError("OUT_DIR", f"{out} cannot be written: {error.strerror}", "a place with room to write")


class TensorFiles:
    """The safetensors files of a model, sharded as save_pretrained does, with an index if they are several.

    Args:
        folder: where they go; exists.
        specs: every tensor by name.
        max_shard_size: e.g. "5GB".

    Raises:
        ConfigError: the disk has no room for them.
    """

    def __init__(self, folder: Path, specs: Mapping[str, TensorSpec], max_shard_size: str) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._places: dict[str, tuple[int, int]] = {}
        shards = split_state_dict_into_shards_factory(
            dict(specs), get_storage_size=_nbytes, filename_pattern=_PATTERN, max_shard_size=max_shard_size
        )
        with self._stack as stack:
            for file, names in shards.filename_to_tensors.items():
                self._create(folder / file, {name: specs[name] for name in names})
            self._stack = stack.pop_all()
        if shards.is_sharded:
            metadata = {"total_size": sum(map(_nbytes, specs.values()))}
            weight_map = dict(sorted(shards.tensor_to_filename.items()))
            write_json(folder / INDEX, {"metadata": metadata, "weight_map": weight_map})

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, name: str, first: int, data: Tensor) -> None:
        """Write ``data``, contiguous and of the tensor's dtype, from byte ``first`` of its data on."""
        descriptor, start = self._places[name]
        view = data.view(torch.uint8).numpy().data
        done = 0
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], start + first + done)

    def _create(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        header, starts, size = _layout(specs)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._stack.callback(os.close, descriptor)
        try:
            os.posix_fallocate(descriptor, 0, len(header) + size)  # a full disk shows now, not at the end
            os.pwrite(descriptor, header, 0)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        self._places.update({name: (descriptor, len(header) + start) for name, start in starts.items()})


def _nbytes(spec: TensorSpec) -> int:
    dtype, shape = spec
    return prod(shape) * item_bytes(dtype)


def _layout(specs: Mapping[str, TensorSpec]) -> tuple[bytes, dict[str, int], int]:
    """Header of a safetensors file, where each tensor starts behind it, and how long they are together.

    The widest types come first, so that each is aligned, as in the format's own writer.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, position = {}, 0
    for name, spec in sorted(specs.items(), key=lambda item: (-item_bytes(item[1][0]), item[0])):
        starts[name], end = position, position + _nbytes(spec)
        entries[name] = {"dtype": spec[0], "shape": list(spec[1]), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, starts, position
