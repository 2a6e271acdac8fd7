"""Set-ups whose weights cannot be merged shard by shard: each is refused by name before a step is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from sfa_hf.engines.optimizer_conduct import CannotAskError, Conduct, conduct
from sfa_hf.engines.optimizers import unwrap

SUPPORTED = "one process, DDP, DeepSpeed ZeRO 0 to 3 (also with CPU offload) and FSDP2 (fully_shard)"

_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_QUANTISERS = ("bitsandbytes", "torchao", "hqq", "quanto", "optimum.quanto")


def refusal(setup: str) -> NotImplementedError:
    """Build the one error of an unsupported set-up."""
    return NotImplementedError(
        f"sfa_hf cannot edit the weights of {setup} in training; supported: {SUPPORTED}"
    )


def refuse_unsupported(model: nn.Module, optimizer: Any) -> None:
    """Refuse what no engine supports.

    Raises:
        NotImplementedError: names the set-up and what is supported.
    """
    for setup, found in _REFUSED.items():
        if found(model, optimizer):
            raise refusal(setup)


def refuse_split_placement(model: nn.Module) -> None:
    """Refuse a model whose weights are not whole on this process' one device.

    Raises:
        NotImplementedError: names the set-up and what is supported.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if any(device.type == "meta" for device in devices):
        raise refusal("a model with parameters on the meta device (offloaded by a device_map)")
    if len(devices) > 1:
        raise refusal(f"a model split over devices ({', '.join(sorted(map(str, devices)))})")
    if unknown := {device.type for device in devices} - {"cpu", "cuda"}:
        raise refusal(f"a model on {unknown.pop()!r} devices")


def refuse_other_weights(optimizer: Any) -> None:
    """Refuse an optimizer that steps from weights of its own: it would undo an edit at a later step.

    Raises:
        NotImplementedError: names the optimizer and what is supported.
    """
    if not _seen(optimizer).keeps_edits:
        raise refusal(f"{_name(optimizer)}, an optimizer that steps from weights of its own and undoes edits")


def refuse_hidden_steps(optimizer: Any) -> None:
    """Refuse an optimizer that steps inside backward: an edit of the gradients would come too late.

    Raises:
        NotImplementedError: names the optimizer and what is supported.
    """
    if not _seen(optimizer).steps_when_told:
        raise NotImplementedError(
            f"sfa_hf cannot edit the gradients of {_name(optimizer)}, an optimizer whose step() moves no "
            "weight (it steps inside backward); supported: optimizers that step when they are told to"
        )


def _seen(optimizer: Any) -> Conduct:
    try:
        return conduct(unwrap(optimizer))
    except CannotAskError as error:
        raise refusal(
            f"{_name(optimizer)}, an optimizer whose steps could not be tried out ({error})"
        ) from error


def _name(optimizer: Any) -> str:
    kind = type(unwrap(optimizer))
    return f"{kind.__module__}.{kind.__qualname__}"


def _quantised(model: nn.Module, optimizer: Any) -> bool:
    """Whether what is trained is quantised; a frozen base is not touched, whatever its weights are."""
    del optimizer
    return any(
        parameter.dtype not in _DTYPES or type(parameter).__module__.startswith(_QUANTISERS)
        for parameter in model.parameters()
        if parameter.requires_grad
    )


def _fsdp1(model: nn.Module, optimizer: Any) -> bool:
    del optimizer
    return any(isinstance(module, FullyShardedDataParallel) for module in model.modules())


def _tensor_parallel(model: nn.Module, optimizer: Any) -> bool:
    del optimizer
    return (getattr(model, "_tp_size", None) or 1) > 1


def _megatron(model: nn.Module, optimizer: Any) -> bool:
    del model
    return type(optimizer).__name__ == "MegatronLMOptimizerWrapper"


def _pipeline(model: nn.Module, optimizer: Any) -> bool:
    del optimizer
    return any(type(module).__name__ in {"PipelineModule", "PipelineStage"} for module in model.modules())


_REFUSED: dict[str, Callable[[nn.Module, Any], bool]] = {
    "a model that trains quantised weights": _quantised,
    "FSDP1 (FullyShardedDataParallel)": _fsdp1,
    "tensor parallel training": _tensor_parallel,
    "Megatron-LM": _megatron,
    "pipeline parallel training": _pipeline,
}
