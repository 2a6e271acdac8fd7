"""What can be told about an optimizer from outside."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor


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


_MOMENTS = {
    "torch.optim.adam.Adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "torch.optim.adamw.AdamW": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "torch.optim.nadam.NAdam": ("exp_avg", "exp_avg_sq"),
    "torch.optim.radam.RAdam": ("exp_avg", "exp_avg_sq"),
    "torch.optim.adamax.Adamax": ("exp_avg", "exp_inf"),
    "deepspeed.ops.adam.cpu_adam.DeepSpeedCPUAdam": ("exp_avg", "exp_avg_sq"),
    "deepspeed.ops.adam.fused_adam.FusedAdam": ("exp_avg", "exp_avg_sq"),
    "deepspeed.ops.lion.cpu_lion.DeepSpeedCPULion": ("exp_avg",),
    "deepspeed.ops.lion.fused_lion.FusedLion": ("exp_avg",),
}
"""All moments of a parameter that an optimizer keeps, each a whole tensor of the parameter's shape."""


def moment_keys(optimizer: Any) -> tuple[str, ...]:
    """Names, in the optimizer's state, of all its moments of a parameter.

    Args:
        optimizer: in any of accelerate's and DeepSpeed's wrappers, with or without state.

    Raises:
        NotImplementedError: it is not one whose state is known to hold these and no other moments.
    """
    stepping = _stepping(optimizer)
    kind = f"{type(stepping).__module__}.{type(stepping).__qualname__}"
    if kind not in _MOMENTS:
        known = ", ".join(name.rpartition(".")[2] for name in _MOMENTS)
        raise NotImplementedError(
            f"the moments of {kind} cannot be changed; supported: 'keep', or one of {known}"
        )
    amsgrad = any(group.get("amsgrad", False) for group in stepping.param_groups)
    return tuple(key for key in _MOMENTS[kind] if amsgrad or key != "max_exp_avg_sq")


_SECOND_MOMENTS = {
    "torch.optim.adam",
    "torch.optim.adamw",
    "torch.optim.nadam",
    "torch.optim.radam",
    "deepspeed.ops.adam.cpu_adam",
    "deepspeed.ops.adam.fused_adam",
}
"""Modules of the optimizers that keep ``exp_avg_sq`` in whole fp32 tensors, biased by 1 - beta2^t."""


def second_moment_decay(optimizer: Any) -> float:
    r"""\beta_2 of an Adam that keeps its second moment as ``exp_avg_sq``.

    Args:
        optimizer: in any of accelerate's and DeepSpeed's wrappers.

    Raises:
        NotImplementedError: it is another optimizer, or its parameter groups have several \beta_2.
    """
    stepping = _stepping(optimizer)
    if not any(kind.__module__ in _SECOND_MOMENTS for kind in type(stepping).__mro__):
        raise _no_second_moments(f"{type(stepping).__module__}.{type(stepping).__qualname__}")
    decays = {float(group["betas"][1]) for group in stepping.param_groups}
    if len(decays) != 1:
        raise _no_second_moments(f"parameter groups with several beta2 ({sorted(decays)})")
    return decays.pop()


def steps_taken(optimizer: torch.optim.Optimizer, stepped: Tensor) -> int | None:
    """How many steps an Adam's state of one tensor has seen; None where there is no state.

    DeepSpeed's FusedAdam (0.19) counts on one tensor of each group, the last with a gradient, and leaves the
    others at 0: there the highest count is everyone's.
    """
    state = optimizer.state.get(stepped, {})
    if "step" not in state:
        return None
    if type(optimizer).__module__ == "deepspeed.ops.adam.fused_adam":
        return max(int(each["step"]) for each in optimizer.state.values())
    return int(state["step"])


def _stepping(optimizer: Any) -> Any:
    """The optimizer that takes the steps, inside accelerate's and DeepSpeed's wrappers."""
    inner = unwrap(optimizer)
    while type(inner).__module__.startswith("deepspeed.runtime"):
        inner = inner.optimizer
    return inner


def _no_second_moments(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"second moments cannot be read from {what}; supported: AdamW and Adam of torch (also fused), "
        "DeepSpeed's CPUAdam and FusedAdam, with one beta2"
    )
