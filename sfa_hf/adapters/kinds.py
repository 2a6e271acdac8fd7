"""What averaging the parameters of each kind of adapter means: asked of the layer's class in PEFT."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from sfa_hf.errors import ConfigError

_logger = logging.getLogger(__name__)

FACTORS = "lora='factors', which averages their parameters apart, or LoRA"

_LINEAR = {
    "ia3.layer.IA3Layer",
    "ln_tuning.layer.LNTuningLayer",
    "trainable_tokens.layer.TrainableTokensLayer",
    "shira.layer.ShiraLayer",
    "fourierft.layer.FourierFTLayer",
    "waveft.layer.WaveFTLayer",
    "c3a.layer.C3ALayer",
    "miss.layer.MissLayer",
    "beft.layer.BeftLayer",
}
"""Layers whose weight is linear in each adapter's parameters: their average is the weight's."""

_PRODUCTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lora.layer.LoraLayer": (("lora_B", "lora_A"), ("lora_embedding_A", "lora_embedding_B")),
    "adalora.layer.AdaLoraLayer": (("lora_E", "lora_B", "lora_A"),),
    "loha.layer.LoHaLayer": (("hada_w2_b", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_t1", "hada_t2"),),
    "lokr.layer.LoKrLayer": (
        ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    ),
    "vera.layer.VeraLayer": (("vera_lambda_b", "vera_lambda_d"),),
    "randlora.layer.RandLoraLayer": (("randlora_lambda", "randlora_gamma"),),
    "hira.layer.HiraLayer": (("hira_B", "hira_A"), ("hira_embedding_A", "hira_embedding_B")),
    "gralora.layer.GraloraLayer": (("gralora_B", "gralora_A"), ("gralora_B_general", "gralora_A_general")),
}
"""Layers whose update is a product that is linear in each factor: attributes of the factors, by product.

The factor that PEFT initialises with zeros stands first.
"""

_PLAIN_PROMPTS = {"PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CARTRIDGE"}
"""Prompts whose parameters are averaged as the weights of any network."""


def tuner_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and layers of all adapters in a model, with or without a PeftModel around it."""
    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415 - an optional extra

    yield from (
        (name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    )


def products_of(layer: Any) -> tuple[tuple[str, ...], ...]:
    """Attributes of the factors of each product that makes a layer's update; none where it is linear.

    Raises:
        ConfigError: the average of its parameters is not the average of what they do.
    """
    products = _products_of(type(layer))
    if products is None:
        raise ConfigError("lora", f"the adapters are {kind_of(layer)}, whose average is not exact", FACTORS)
    return products


def kind_of(layer: Any) -> str:
    """A layer's kind of adapter, as PEFT's package of it is called."""
    module = next(k for k in type(layer).__mro__ if k.__module__.startswith("peft.tuners.")).__module__
    return module.split(".")[2]


def warn_of_factors(model: nn.Module) -> None:
    """Say that the factors of adapters are handled apart, if there are any."""
    kinds = sorted({kind_of(layer) for _, layer in tuner_layers(model) if _products_of(type(layer)) != ()})
    if kinds:
        _logger.warning(
            "the parameters of %s adapters are taken one by one: an average of A and of B is not the average "
            "of the update B A (both halved make it a quarter)",
            ", ".join(kinds),
        )


def refuse_inexact_prompts(model: nn.Module) -> None:
    """Refuse trained prompts, and whole models, of which nothing is known.

    Raises:
        ConfigError: names the kind.
    """
    for config in getattr(model, "peft_config", {}).values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        prompts = getattr(config, "is_prompt_learning", False) and kind not in _PLAIN_PROMPTS
        if prompts or kind in {"ADAPTION_PROMPT", "XLORA"}:
            raise ConfigError("lora", f"the adapters are {kind}, whose average is not exact", FACTORS)


def _products_of(kind: type) -> tuple[tuple[str, ...], ...] | None:
    """As :func:`products_of`; None for what is not known."""
    return next((_known()[each] for each in kind.__mro__ if each in _known()), None)


@cache
def _known() -> dict[type, tuple[tuple[str, ...], ...]]:
    found: dict[type, tuple[tuple[str, ...], ...]] = {}
    for path, products in {**dict.fromkeys(_LINEAR, ()), **_PRODUCTS}.items():
        module, _, name = f"peft.tuners.{path}".rpartition(".")
        with suppress(ImportError):  # a version of PEFT may lack the kind
            found[getattr(import_module(module), name)] = products
    return found
