"""Load a model and its tokenizer by name; one error line if that fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from sfa_hf.config.paths import expanded
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.files.adapter_folder import base_of, is_adapter
from sfa_hf.files.hub import first_line, from_hub
from sfa_hf.files.regular import json_object
from sfa_hf.files.weight_files import SAVED, weight_files
from sfa_hf.models.adapters import put_on
from sfa_hf.models.builtin import BUILTINS, Recipe, builtin_folder
from sfa_hf.models.checks import (
    refuse_encoder,
    refuse_not_causal,
    refuse_not_finite,
    refuse_other_weights,
)

KEY = "model.name_or_path"
_NO_CODE = "an architecture of transformers: no code that comes with a model is run"
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

    Of an adapter's folder, the adapter is put on the base that its config names. Weights are read only from
    safetensors; nothing is unpickled. A tokenizer without a pad token pads with its EOS token, or else its
    unknown token. Labels are masked by length and not by that id (see :class:`sfa_hf.tasks.RightPad`), so a
    real EOS still counts in the loss.

    Args:
        name_or_path: a Hub id, a folder, or one of :data:`BUILTINS`.
        dtype: dtype of the weights, e.g. "float32" or "bfloat16".
        kwargs: other arguments of ``AutoModelForCausalLM.from_pretrained``.

    Returns:
        The model and its tokenizer.

    Raises:
        ConfigError: it cannot be loaded without running code of its own, or is not a causal language model
            with a tokenizer; weights are missing, of another shape, left over, NaN or infinite.
    """
    where = resolve_model(name_or_path)
    if is_adapter(where):
        return load_adapted(where, base_of(where, KEY), dtype, **kwargs)
    with _loading(where), _without_report():
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        refuse_encoder(KEY, where, AutoConfig.from_pretrained(where, trust_remote_code=False))
        # ignore_mismatched_sizes: so that they come back in the info, and are named.
        model, info = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **kwargs,
        )
    refuse_not_causal(KEY, where, model)
    refuse_other_weights(KEY, where, info)
    refuse_not_finite(KEY, where, model)
    _set_pad_token(model, tokenizer)
    return model, tokenizer


def load_adapted(
    folder: str, base: str, dtype: str, *, trained: bool = False, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model with a saved adapter on it, and the tokenizer of the adapter's folder or else the base's.

    Args:
        folder: of the adapter.
        base: folder or Hub id of the model that it is put on.
        dtype: of the base's weights; adapters are in float32.
        trained: whether the adapter will be trained.
        kwargs: as for :func:`load_model`.

    Raises:
        ConfigError: as :func:`load_model`; the adapter does not fit the base, or is not finite.
    """
    model, tokenizer = load_model(base, dtype, **kwargs)
    if list(Path(folder).glob("tokenizer*")):
        with _loading(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        _set_pad_token(model, tokenizer)
    adapted = put_on(model, folder, KEY, trained=trained)
    refuse_not_finite(KEY, folder, adapted)
    return adapted, tokenizer


def _set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    for config in filter(None, (model.config, model.generation_config)):
        config.pad_token_id = tokenizer.pad_token_id


def model_without_values(name_or_path: str) -> PreTrainedModel:
    """Build the model that a config describes on "meta": names and shapes of its parameters, and no memory.

    Of an adapter's folder, the base alone.

    Args:
        name_or_path: as for :func:`resolve_model`; no weights are read.

    Raises:
        ConfigError: there is no config, or it is none of a causal language model of transformers.
    """
    where = resolve_model(name_or_path)
    if is_adapter(where):
        where = resolve_model(base_of(where, KEY))
    with _loading(where), torch.device("meta"):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _loading(where: str) -> AbstractContextManager[None]:
    return _from_folder(where) if Path(where).is_dir() else from_hub(KEY, f"model {where}")


@contextmanager
def _without_report() -> Iterator[None]:
    """Leave out the table of missing weights that transformers logs: they are an error here."""
    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(_is_no_report)
    try:
        yield
    finally:
        log.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _check_folder(folder: Path) -> None:
    if is_adapter(folder):
        base_of(folder, KEY)
        return
    if not list(folder.glob("tokenizer*")):  # transformers would create an empty one
        raise ConfigError(KEY, f"{folder} has no tokenizer", SAVED)
    weight_files(folder, KEY)
    _refuse_code(folder)


def _refuse_code(folder: Path) -> None:
    """A folder's own code is never run; transformers' classes are used where they know its kind of model."""
    own = json_object(folder / "config.json", KEY, SAVED)
    if own.get("auto_map") and own.get("model_type") not in CONFIG_MAPPING:
        problem = f"{folder} is a {own.get('model_type')}, which needs code of its own (auto_map)"
        raise ConfigError(KEY, problem, _NO_CODE)
    file = folder / "tokenizer_config.json"
    told = json_object(file, KEY, SAVED) if file.is_file() else {}
    name = told.get("tokenizer_class")
    if told.get("auto_map") and (not isinstance(name, str) or tokenizer_class_from_name(name) is None):
        problem = f"{folder} has a tokenizer {name}, which needs code of its own (auto_map)"
        raise ConfigError(KEY, problem, _NO_CODE)


@contextmanager
def _from_folder(folder: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as err:
        if isinstance(err, ConfigError):
            raise
        if "trust_remote_code" in str(err):
            problem = f"{folder} needs code of its own (auto_map) for its model or its tokenizer"
            raise ConfigError(KEY, problem, _NO_CODE) from err
        right = "a causal language model and its tokenizer, as save_pretrained writes them"
        raise ConfigError(KEY, f"{folder} cannot be loaded: {first_line(err)}", right) from err
