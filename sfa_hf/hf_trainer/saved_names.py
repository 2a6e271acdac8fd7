"""The names of what a Trainer, and our callbacks, save in a checkpoint or a model's folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.files.manifest import MANIFEST, sealed_files
from sfa_hf.files.owned import Names

SHARDS: Names = {r".+\.safetensors": None, r".+\.json": None}
"""Weights in the layout of shards."""
UNSEALED: Names = {
    r".+\.(safetensors|json|jinja|bin|pt|pth|model|tiktoken|distcp)": None,
    r"(merges|vocab)\.txt|README\.md|\.gitattributes|latest|zero_to_(fp32|torch)\.py|merge\.yaml": None,
    r"(optimizer|pytorch_model_fsdp|global_step)_?\d*": {r".+\.(pt|distcp)|\.metadata": None},
    r"ema": SHARDS,
}
"""What a Trainer may have written into a folder that has no manifest yet."""


def saved_names(folder: Path) -> Names:
    """What the manifest of a folder lists; where there is none, what a Trainer may have written."""
    try:
        files = sealed_files(folder)
    except ConfigError:
        return {**UNSEALED, re.escape(MANIFEST): None}
    return {re.escape(MANIFEST): None, **_tree(files)}


def _tree(files: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in files:
        *folders, name = map(re.escape, Path(file).parts)
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = None
    return found
