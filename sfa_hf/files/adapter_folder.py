"""The folder of a PEFT adapter: whether it is one, and which model it was put on."""

from __future__ import annotations

from pathlib import Path

from sfa_hf.errors import ConfigError
from sfa_hf.files.regular import json_object

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_SAVED = "the folder of an adapter as PEFT's save_pretrained writes it, with safetensors"


def is_adapter(source: str | Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (Path(source) / CONFIG).is_file()


def base_of(folder: str | Path, key: str) -> str:
    """The folder or Hub id of the model that a saved adapter was put on.

    Raises:
        ConfigError: its config does not name it, or its weights are not in safetensors.
    """
    told = json_object(Path(folder) / CONFIG, key, _SAVED).get("base_model_name_or_path")
    if not isinstance(told, str) or not told:
        raise ConfigError(key, f"{Path(folder) / CONFIG} names no base_model_name_or_path", _SAVED)
    if not (Path(folder) / WEIGHTS).is_file():
        raise ConfigError(key, f"{folder} has no {WEIGHTS}", _SAVED)
    return told
