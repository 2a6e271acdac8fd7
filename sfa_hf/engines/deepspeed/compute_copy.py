"""The precision that a model computes in under DeepSpeed, for a model that is scored without an engine."""

from __future__ import annotations

import torch
from torch import nn


def cast_as_deepspeed(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast in place what DeepSpeed's bf16 and fp16 modes cast.

    That is the parameters alone, in DeepSpeed 0.19: buffers keep their precision, and with rotary embeddings'
    frequencies in bf16 a saved model would not score as the one that was trained. Earlier versions cast the
    whole module.
    """
    from deepspeed.runtime.engine import DeepSpeedEngine  # noqa: PLC0415 - DeepSpeed is an optional extra

    if not hasattr(DeepSpeedEngine, "_cast_module_mixed_precision"):
        model.to(dtype)
        return
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
