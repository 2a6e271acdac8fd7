"""Models that are not in a local folder. Imports what a merge of local folders does without."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub

from sfa_hf.errors import known_as
from sfa_hf.files.hub import from_hub
from sfa_hf.models import resolve_model

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


def fetch(name: str, key: str) -> Path:
    """Folder of a built-in model, or of a Hub id's files in the local cache, downloaded where they are not.

    Raises:
        ConfigError: there is no such model, or the Hub is out of reach and the cache has none.
    """
    with known_as(key):
        where = resolve_model(name)
    if Path(where).is_dir():
        return Path(where)
    with from_hub(key, f"model {name}"):
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_PATTERNS))
