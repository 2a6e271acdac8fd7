"""Second moments of a training as whole tensors, by the names that its saved model has in its files."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sfa_hf.checkpoints.output import TensorFiles, new_folder
from sfa_hf.engines.base import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.moments.folder import MomentFolder
from sfa_hf.shards.model_files import AnchorFiles

_BLOCK = 2**22
"""Entries copied at once: 16 MiB."""
_FP32_BYTES = 4


def export_moments(moments: Path, model: Path, out: Path) -> int:
    """Write second moments for the rule ``fisher`` of saved models, a block at a time.

    Args:
        moments: a ``_second_moments`` folder, of any number of ranks.
        model: folder of the model that the training left, whose files name the tensors.
        out: a new folder.

    Returns:
        How many tensors were written.

    Raises:
        ConfigError: a folder is not what it should be, or ``out`` exists.
    """
    kept = MomentFolder(moments)
    names = _stored_names(model, list(kept.shapes))
    specs = {names[name]: ("F32", tuple(shape)) for name, shape in kept.shapes.items()}
    with new_folder(out) as folder, TensorFiles(folder, specs, "50GB") as files:
        for name, shape in kept.shapes.items():
            for first in range(0, prod(shape), _BLOCK):
                part = torch.empty(min(_BLOCK, prod(shape) - first), device="meta")
                values = kept.read(Shard(name, part, first, torch.Size(shape)))
                files.write(names[name], first * _FP32_BYTES, values)
    return len(specs)


def _stored_names(model: Path, names: list[str]) -> dict[str, str]:
    if not (model / "config.json").is_file():
        raise ConfigError("MODEL", f"{model} has no config.json", "the folder of the model that was trained")
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    known = {name for name, _ in empty.named_parameters()}
    if unknown := sorted(set(names) - known):
        raise ConfigError("MODEL", f"{model} has no parameter {unknown[0]}", "the model that was trained")
    files = AnchorFiles(str(model), empty)
    return {name: files.stored_name(name) for name in names}
