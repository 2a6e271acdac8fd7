"""Saved adapters made into other saved models: merged into their base, or several into one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfa_hf.engines.deepspeed.zero_init import whole_models
from sfa_hf.errors import ConfigError
from sfa_hf.files.adapter_folder import CONFIG, WEIGHTS, base_of
from sfa_hf.files.atomic import write_json
from sfa_hf.models.loading import KEY, load_adapted

_A, _B = ".lora_A.weight", ".lora_B.weight"


def merge_into_base(folder: Path, out: Path, dtype: str) -> None:
    """Save the whole model that an adapter makes of its base, as PEFT merges it.

    Args:
        folder: of the adapter, whose config names the base.
        out: the model's folder; made.
        dtype: that it is merged and saved in.

    Raises:
        ConfigError: the adapter or its base cannot be loaded, or cannot be merged.
    """
    with whole_models():  # one process calls this, of a training on several
        adapted, tokenizer = load_adapted(str(folder), base_of(folder, KEY), dtype)
    try:
        model = adapted.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, AttributeError) as error:
        right = "an adapter that PEFT can merge into its base"
        raise ConfigError(KEY, f"{folder} cannot be merged: {error}", right) from error
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def stack(older: Path, newer: Path, out: Path) -> None:
    r"""Save two adapters as one, whose update is the sum of theirs: A and B are put side by side.

    Args:
        older: folder of an adapter of rank k r, itself a stack of k; k from 1 on.
        newer: folder of one of rank r on the same layers, with the same \alpha / r.
        out: gets the files of ``newer``, its tokenizer too, with the stacked tensors.

    Raises:
        ConfigError: the adapters do not fit.
    """
    (first, config), (second, own) = (read_adapter(folder) for folder in (older, newer))
    parts = 1 + config["r"] // own["r"]
    if config["r"] % own["r"] or first.keys() != second.keys():
        raise ConfigError("model.peft", f"{older} and {newer} are of other layers or ranks", "one model.peft")
    axes = {_A: 0, _B: 1}
    stacked = {
        name: torch.cat([first[name], values], axes[name[-len(_A) :]]) for name, values in second.items()
    }
    grows = math.sqrt(parts) if own["use_rslora"] else parts  # so that alpha / r, or / sqrt(r), stays
    changed = {
        "r": own["r"] * parts,
        "lora_alpha": own["lora_alpha"] * grows,
        "rank_pattern": {name: rank * parts for name, rank in own["rank_pattern"].items()},
        "alpha_pattern": {name: alpha * grows for name, alpha in own["alpha_pattern"].items()},
    }
    write_like(newer, out, stacked, changed)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a saved adapter by PEFT's names, and its config."""
    return load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def write_like(
    folder: Path, out: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
) -> None:
    """Save an adapter that differs from a saved one in its tensors, and in some fields of its config."""
    leave = shutil.ignore_patterns("manifest.json", WEIGHTS, "training_args.bin")
    shutil.copytree(folder, out, ignore=leave, dirs_exist_ok=True)
    contiguous = {name: values.contiguous() for name, values in tensors.items()}
    save_file(contiguous, out / WEIGHTS, metadata={"format": "pt"})
    if config is not None:
        write_json(out / CONFIG, {**json.loads((out / CONFIG).read_text(encoding="utf-8")), **config})
