"""What can be told about an optimizer from outside."""

from __future__ import annotations

from typing import Any

from accelerate.optimizer import AcceleratedOptimizer


def unwrap(optimizer: Any) -> Any:
    """Return the optimizer inside accelerate's wrappers."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer


def steps_in_deepspeed(optimizer: Any) -> bool:
    """Whether a DeepSpeed engine steps this optimizer: its own wrapper class, or accelerate's around it.

    A DeepSpeed optimizer kernel (``deepspeed.ops``) outside a DeepSpeed engine is a plain optimizer.
    """
    wrapped = type(optimizer).__name__ == "DeepSpeedOptimizerWrapper"
    return wrapped or type(unwrap(optimizer)).__module__.startswith("deepspeed.runtime")


def keeps_moments(optimizer: Any) -> bool:
    """Whether the optimizer keeps Adam's moments, told by its ``betas`` before any step was taken."""
    return any("betas" in group for group in unwrap(optimizer).param_groups)
