"""Choosing the engine of a model by looking at it."""

from __future__ import annotations

from typing import Any

from torch import nn

from sfa_hf.engines.base import Engine
from sfa_hf.engines.deepspeed.find import find_deepspeed_engine
from sfa_hf.engines.fsdp2 import FSDP2Engine
from sfa_hf.engines.optimizers import steps_in_deepspeed
from sfa_hf.engines.plain import DDPEngine, PlainEngine
from sfa_hf.engines.refusals import refusal, refuse_unsupported

_ENGINES = (FSDP2Engine, DDPEngine, PlainEngine)


def attach(model: nn.Module, optimizer: Any) -> Engine:
    """Return the engine that answers for ``model``.

    Args:
        model: the model in training, unwrapped from DDP's or DeepSpeed's module.
        optimizer: what steps it: a torch optimizer, DeepSpeed's, or accelerate's wrapper around either.

    Raises:
        NotImplementedError: names the set-up, if it is not supported, and what is supported.
    """
    refuse_unsupported(model, optimizer)
    if steps_in_deepspeed(optimizer) or find_deepspeed_engine(model) is not None:
        from sfa_hf.engines.deepspeed.attach import attach_deepspeed  # noqa: PLC0415 - an optional extra

        return attach_deepspeed(model, optimizer)
    for engine in _ENGINES:
        if engine.matches(model, optimizer):
            return engine(model, optimizer)
    raise refusal(f"{type(model).__name__} stepped by {type(optimizer).__name__}")
