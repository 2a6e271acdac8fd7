"""Load a model and its tokenizer by name; one error line if that fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sfa_hf.config.paths import expanded
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.files.hub import first_line, from_hub
from sfa_hf.models.builtin import BUILTINS, Recipe, builtin_folder

KEY = "model.name_or_path"
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def resolve_model(name_or_path: str, cache_dir: Path | None = None, recipe: Recipe | None = None) -> str:
    """Return where the model is: a folder, or the Hub id as given.

    A built-in model is built on first use (about a minute) and cached. Several processes may ask at the same
    time; one builds. Call it before a process group or DeepSpeed is set up, because both would change how the
    model is built.

    Args:
        name_or_path: a Hub id, a folder, or one of :data:`BUILTINS`.
        cache_dir: cache of built-in models; None for ``$SFA_HF_CACHE``, or else ``sfa_hf`` under
            ``$XDG_CACHE_HOME`` or ``~/.cache``.
        recipe: recipe to use for a built-in model instead of its own.

    Raises:
        ConfigError: there is no such built-in model or folder, or the folder has no config or weights.
    """
    if name_or_path.startswith("builtin:"):
        if name_or_path not in BUILTINS:
            raise ConfigError(
                KEY, f"there is no built-in model '{name_or_path}'", nearest(name_or_path, BUILTINS)
            )
        return str(builtin_folder(recipe or BUILTINS[name_or_path], cache_dir))
    folder = Path(expanded(name_or_path, KEY))
    if folder.is_dir():
        _check_folder(folder)
        return str(folder)
    if not _HUB_ID.fullmatch(name_or_path):
        right = "an existing folder, a Hub id, or builtin:pythia, builtin:llama, builtin:qwen"
        raise ConfigError(KEY, f"there is no folder {name_or_path}", right)
    return name_or_path


def load_model(
    name_or_path: str, dtype: str, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer.

    Weights are read only from safetensors; nothing is unpickled. A tokenizer without a pad token pads with
    its EOS token, or else its unknown token. Labels are masked by length and not by that id (see
    :class:`sfa_hf.tasks.RightPad`), so a real EOS still counts in the loss.

    Args:
        name_or_path: a Hub id, a folder, or one of :data:`BUILTINS`.
        dtype: dtype of the weights, e.g. "float32" or "bfloat16".
        kwargs: other arguments of ``AutoModelForCausalLM.from_pretrained``.

    Returns:
        The model and its tokenizer.

    Raises:
        ConfigError: it cannot be loaded, or is not a causal language model with a tokenizer.
    """
    where = resolve_model(name_or_path)
    with _loading(where):
        tokenizer = AutoTokenizer.from_pretrained(where)
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=getattr(torch, dtype), use_safetensors=True, **kwargs
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    for config in filter(None, (model.config, model.generation_config)):
        config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def model_without_values(name_or_path: str) -> PreTrainedModel:
    """Build the model that a config describes on "meta": names and shapes of its parameters, and no memory.

    Args:
        name_or_path: as for :func:`resolve_model`; no weights are read.

    Raises:
        ConfigError: there is no config, or it is none of a causal language model of transformers.
    """
    where = resolve_model(name_or_path)
    with _loading(where), torch.device("meta"):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _loading(where: str) -> AbstractContextManager[None]:
    return _from_folder(where) if Path(where).is_dir() else from_hub(KEY, f"model {where}")


def _check_folder(folder: Path) -> None:
    right = "a folder that save_pretrained wrote, with its weights in safetensors"
    if not (folder / "config.json").is_file():
        raise ConfigError(KEY, f"{folder} has no config.json", right)
    if not list(folder.glob("tokenizer*")):  # transformers would create an empty one
        raise ConfigError(KEY, f"{folder} has no tokenizer", right)
    if not list(folder.glob("*.safetensors")):
        pickled = " (a pickled .bin file is not read)" if list(folder.glob("*.bin")) else ""
        raise ConfigError(KEY, f"{folder} has no weights{pickled}", right)


@contextmanager
def _from_folder(folder: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as err:
        right = "a causal language model and its tokenizer, as save_pretrained writes them"
        raise ConfigError(KEY, f"{folder} cannot be loaded: {first_line(err)}", right) from err
