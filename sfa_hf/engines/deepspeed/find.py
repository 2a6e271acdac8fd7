"""Finding the DeepSpeedEngine that trains a model, without importing DeepSpeed where it is not in use."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from torch import nn


def find_deepspeed_engine(model: nn.Module) -> Any | None:
    """Return the ``DeepSpeedEngine`` that trains ``model``, or None.

    It is found by the forward hook it registers: a Trainer's callback gets the model and the optimizer alone,
    and under fp32 without ZeRO neither refers to the engine.
    """
    if "deepspeed.runtime.engine" not in sys.modules:
        return None
    kind = sys.modules["deepspeed.runtime.engine"].DeepSpeedEngine
    if isinstance(model, kind):
        return model
    for hook in reversed(model._forward_pre_hooks.values()):
        if inspect.isfunction(hook):
            for value in inspect.getclosurevars(hook).nonlocals.values():
                if isinstance(value, kind) and value.module is model:
                    return value
    return None


def zero_stage(model: nn.Module) -> int:
    """The ZeRO stage of a model that DeepSpeed trains."""
    engine = find_deepspeed_engine(model)
    assert engine is not None
    return int(engine.zero_optimization_stage())
