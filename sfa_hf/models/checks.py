"""What a model that has just been loaded must be: whole, finite, and one that predicts the next token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from sfa_hf.distributed import everyones
from sfa_hf.engines.sharded import is_partitioned, own_part
from sfa_hf.errors import ConfigError

_SHOWN = 3


def refuse_other_weights(key: str, where: str, info: Mapping[str, Any]) -> None:
    """Compare what ``from_pretrained`` found in the files with what the model has.

    Args:
        key: the config key that names the model, for errors.
        where: its folder or Hub id.
        info: of ``output_loading_info=True``: without tied weights and what the model's class ignores.

    Raises:
        ConfigError: names weights that are missing, of another shape, or not the model's.
    """
    right = "files and a config.json that save_pretrained wrote together"
    if wrong := sorted(info["mismatched_keys"]):
        name, stored, wanted = wrong[0]
        problem = f"{where} has {name} of shape {list(stored)}, its config says {list(wanted)}"
        raise ConfigError(key, f"{problem}{_more(len(wrong) - 1)}", right)
    if info["missing_keys"]:
        raise ConfigError(key, f"{where} lacks weights: {_names(info['missing_keys'])}", right)
    if info["unexpected_keys"]:
        problem = f"{where} has weights that its config leaves no place for"
        raise ConfigError(key, f"{problem}: {_names(info['unexpected_keys'])}", right)


def refuse_not_finite(key: str, where: str, model: nn.Module) -> None:
    """See that every weight and every buffer of floats is a number.

    Under ZeRO-3 each process sees its part, and this is a collective call.

    Raises:
        ConfigError: on every process that has the model or a part of it, the first that is not.
    """
    found = _not_finite(model)
    if any(map(is_partitioned, model.parameters())):
        found = next(filter(None, everyones(found)), None)
    if found is not None:
        raise ConfigError(key, f"{where} has NaN or infinite values in {found}", "finite weights")


def _not_finite(model: nn.Module) -> str | None:
    saved = set(model.state_dict())  # a mask of minus infinities is none of them
    buffers = ((name, buffer) for name, buffer in model.named_buffers() if name in saved)
    for name, tensor in (*model.named_parameters(), *buffers):
        values = own_part(tensor).detach()
        # The extremes carry a NaN on, and need no mask of the tensor's size.
        floats = values.numel() and values.is_floating_point()
        if floats and not all(extreme.isfinite() for extreme in torch.aminmax(values)):
            return name
    return None


def refuse_encoder(key: str, where: str, config: PreTrainedConfig) -> None:
    """Refuse by its config what is no causal language model, before a part of it is loaded as one.

    Raises:
        ConfigError: it is an encoder with a decoder, or of a kind that transformers has no causal model of.
    """
    if getattr(config, "is_encoder_decoder", False):
        problem = f"{where} is a {config.model_type}, an encoder with a decoder"
        raise ConfigError(key, problem, "a causal language model")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        problem = f"{where} is a {config.model_type}, of which transformers has no causal language model"
        raise ConfigError(key, problem, "a causal language model")


def refuse_not_causal(key: str, where: str, model: PreTrainedModel) -> None:
    """Refuse a model none of whose attention is causal: it sees the tokens that it should predict.

    Raises:
        ConfigError: it is an encoder, such as BERT.
    """
    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    if causal and not any(causal):
        problem = f"{where} is a {model.config.model_type} encoder, whose tokens see those behind them"
        raise ConfigError(key, problem, "a causal language model")


def _names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"{', '.join(ordered[:_SHOWN])}{_more(len(ordered) - _SHOWN)}"


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
