"""A saved PEFT adapter, put on its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sfa_hf.errors import ConfigError

NAME = "default"
"""What the adapter is called in the model."""


def put_on(model: PreTrainedModel, folder: str | Path, key: str, *, trained: bool = False) -> Any:
    """Put a saved adapter on a model: a ``PeftModel``, whose adapter is called :data:`NAME`.

    Args:
        model: the adapter's base; changed in place.
        folder: of the adapter.
        key: the config key that names it, for errors.
        trained: whether the adapter will be trained.

    Raises:
        ConfigError: the adapter does not fit the model.
    """
    peft = import_peft(key)
    right = "an adapter of this very model"
    try:
        adapted = peft.PeftModel.from_pretrained(model, str(folder), NAME, is_trainable=trained)
        stored = peft.utils.load_peft_weights(str(folder), device="cpu")
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(key, f"the adapter {folder} cannot be loaded: {first}", right) from error
    own = peft.get_peft_model_state_dict(adapted, adapter_name=NAME, save_embedding_layers=False)
    if odd := sorted(own.keys() ^ stored.keys()):
        whose = "the model has no place for" if odd[0] in stored else "it lacks"
        raise ConfigError(key, f"of the adapter {folder}, {whose} {odd[0]}", right)
    return adapted


def import_peft(key: str) -> Any:
    """The library PEFT. Raises ConfigError where it is not installed."""
    try:
        import peft  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigError(key, "adapters need PEFT", "pip install sfa-hf[peft]") from error
    return peft
