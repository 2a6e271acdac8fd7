"""A saved model: its config, and its tensors wherever they lie in its files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sfa_hf.config.paths import expanded
from sfa_hf.errors import ConfigError, known_as
from sfa_hf.files.adapter_folder import is_adapter
from sfa_hf.files.regular import json_object
from sfa_hf.files.safetensors_slices import Stored, open_tensors
from sfa_hf.files.weight_files import SAVED, weight_files


@dataclass(frozen=True)
class SavedModel:
    """An opened model.

    Attributes:
        key: the recipe's key that names it, for errors: "base", "models.0".
        source: as the recipe names it.
        folder: where it lies.
        config: of config.json.
        tensors: by name, of all its files.
        importances: F by the same names, where the recipe gives them.
    """

    key: str
    source: str
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Stored]
    importances: dict[str, Stored] | None = None

    @property
    def vocabulary(self) -> int | None:
        """Rows of the embedding by the config."""
        return self.config.get("vocab_size") or (self.config.get("text_config") or {}).get("vocab_size")


def open_model(source: str, key: str, stack: ExitStack, fisher: str | None = None) -> SavedModel:
    """Open a model for as long as ``stack``; of an adapter, the whole model that it makes of its base.

    Args:
        source: a folder, a Hub id or ``builtin:...``.
        key: the recipe's key that names it.
        stack: closes its files.
        fisher: folder or file of its F.

    Raises:
        ConfigError: it is not there, or is quantised, pickled or broken.
    """
    folder = locate(source, key)
    if is_adapter(folder):
        folder = _with_its_base(folder, key, stack)
    config = _config(folder, key)
    tensors = _tensors(weight_files(folder, key), key, stack)
    importances = None if fisher is None else _importances(fisher, f"{key}.fisher", stack)
    return SavedModel(key, source, folder, config, tensors, importances)


def _with_its_base(folder: Path, key: str, stack: ExitStack) -> Path:
    """A folder of the whole model, in float32, that is there as long as ``stack``."""
    from sfa_hf.adapters.merged import merge_into_base  # noqa: PLC0415 - seconds that other merges save

    whole = Path(stack.enter_context(TemporaryDirectory(prefix="sfa-hf-merged-"))) / "model"
    with known_as(key):
        merge_into_base(folder, whole, "float32")
    return whole


def locate(source: str, key: str) -> Path:
    """Folder of a model."""
    folder = Path(expanded(source, key))
    if folder.is_dir():
        return folder
    from sfa_hf.checkpoints.remote import fetch  # noqa: PLC0415 - seconds that a local merge saves

    return fetch(source, key)


def _config(folder: Path, key: str) -> dict[str, Any]:
    config = json_object(folder / "config.json", key, SAVED)
    if "quantization_config" in config:
        raise ConfigError(key, f"{folder} is quantised", "weights in floating point")
    return config


def _importances(given: str, key: str, stack: ExitStack) -> dict[str, Stored]:
    path = Path(expanded(given, key))
    if not path.exists():
        raise ConfigError(key, f"there is no {path}", "a safetensors file or a folder of them")
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(key, f"{path} has no safetensors", "a safetensors file or a folder of them")
    return _tensors(files, key, stack)


def _tensors(files: list[Path], key: str, stack: ExitStack) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for path in files:
        for name, tensor in open_tensors(path, key, stack):
            if name in found:
                raise ConfigError(key, f"{found[name].path} and {path} both hold {name}", "each tensor once")
            found[name] = tensor
    return found
