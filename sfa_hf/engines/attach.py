"""Choosing the engine of a model: each says whether it fits."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from sfa_hf.engines.base import Engine
from sfa_hf.engines.deepspeed.find import find_deepspeed_engine
from sfa_hf.engines.optimizers import steps_in_deepspeed, unwrap
from sfa_hf.engines.refusals import refusal, refuse_unsupported
from sfa_hf.registry import classes, plugins


def attach(model: nn.Module, optimizer: Any) -> Engine:
    """Return the engine that answers for ``model``.

    Args:
        model: the model in training, unwrapped from DDP's or DeepSpeed's module.
        optimizer: what steps it: a torch optimizer, DeepSpeed's, or accelerate's wrapper around either.

    Raises:
        NotImplementedError: names the set-up, if it is not supported, and what is supported.
    """
    refuse_unsupported(model, optimizer)
    folder, trained_by = "sfa_hf.engines", find_deepspeed_engine(model)
    if trained_by is not None or steps_in_deepspeed(optimizer):
        from sfa_hf.engines.deepspeed import refusals  # noqa: PLC0415 - DeepSpeed is an optional extra

        if trained_by is None:
            raise refusal("a model that no DeepSpeedEngine was initialised on")
        refusals.refuse_unsupported_deepspeed(trained_by)
        folder, model, optimizer = "sfa_hf.engines.deepspeed", trained_by.module, unwrap(optimizer)
    fitting = [engine for engine in known_engines(folder).values() if engine.fits(model, optimizer)]
    fitting = [engine for engine in fitting if not engine.LAST] or fitting
    if not fitting:
        raise refusal(f"{type(model).__name__} stepped by {type(optimizer).__name__}")
    if len(fitting) > 1:
        names = " and ".join(engine.__name__ for engine in fitting)
        raise RuntimeError(f"{names} both fit {type(model).__name__} stepped by {type(optimizer).__name__}")
    return fitting[0](model, optimizer)


@cache
def known_engines(folder: str) -> dict[str, type[Engine]]:
    """The engines of a folder by the names of their classes."""
    return plugins(folder, classes(Engine, lambda engine: engine.__name__))
