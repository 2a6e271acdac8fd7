"""A new adapter on a model, with the same start on every process and in every run of a seed."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.errors import ConfigError
from sfa_hf.models.adapters import NAME, import_peft

KEY = "model.peft"


def new_adapter(model: PreTrainedModel, options: AdapterOptions, seed: str) -> Any:
    """Put new adapters on a model, in place: a ``PeftModel``.

    Args:
        model: whose parameters are frozen; may be on "meta".
        options: which adapters.
        seed: text that the start of A is drawn from; torch's random state is left as it was.

    Raises:
        ConfigError: the options do not suit the model.
    """
    peft = import_peft(KEY)
    try:
        config = peft.LoraConfig(task_type="CAUSAL_LM", **options.fields())
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(seed.encode()))
            adapted = peft.get_peft_model(model, config, NAME)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise ConfigError(
            KEY, " ".join(str(error).split()), "fields that LoraConfig takes together"
        ) from error
    name_base(adapted)
    return adapted


def name_base(adapted: Any) -> None:
    """Let the adapter's files name their base by a path that holds in any folder."""
    config = adapted.peft_config[NAME]
    base = config.base_model_name_or_path
    if base and Path(base).is_dir():
        config.base_model_name_or_path = str(Path(base).absolute())
