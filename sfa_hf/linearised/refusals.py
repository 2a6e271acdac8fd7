"""Models and set-ups that cannot be linearised; each is refused by name."""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import PreTrainedModel

from sfa_hf.engines.sharded import is_partitioned

FAMILIES = ("gpt_neox", "llama", "qwen2")
"""Model types whose linearisation is tested against finite differences."""

ENGINES = "one process, DDP, and DeepSpeed ZeRO 0 to 2"
_REPLACED = ("eager", "sdpa", None)
"""Attention implementations that are replaced by "eager", which computes the same function. sdpa is the
default. A user selects the others by name to save memory, which eager attention would not."""


def refuse(what: str, right: str) -> NotImplementedError:
    """Return the error for something that cannot be linearised."""
    return NotImplementedError(f"sfa_hf cannot linearise {what}; supported: {right}")


def refuse_model(model: PreTrainedModel) -> None:
    """Refuse a model outside :data:`FAMILIES`, or one without a forward-mode derivative.

    Raises:
        NotImplementedError: the error names the model and what is supported.
    """
    if model.config.model_type not in FAMILIES:
        raise refuse(f"a model of type {model.config.model_type!r}", ", ".join(FAMILIES))
    attention = model.config._attn_implementation
    if attention not in _REPLACED:
        right = "'eager', the one with a forward-mode derivative: attn_implementation='eager'"
        raise refuse(f"attention implementation {attention!r}", right)
    if getattr(model, "hf_quantizer", None) is not None:
        raise refuse("quantised weights", "floating point")
    refuse_setup(model)


def refuse_setup(model: nn.Module) -> None:
    """Refuse a set-up that a linearised model cannot run in.

    Weights must be whole on this process, because the pass calls the model with other weights. Gradient
    checkpointing is refused, because values that are recomputed in the backward pass would have no tangents.

    Raises:
        NotImplementedError: the error names the set-up and what is supported.
    """
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise refuse("a model with gradient checkpointing", "training without it, on shorter batches or LoRA")
    if getattr(model, "_is_replica", False):
        raise refuse("a model under nn.DataParallel", ENGINES + ": launch one process per GPU")
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise refuse("a model under FSDP1", ENGINES)
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        raise refuse("a model under FSDP2, whose weights are sharded", ENGINES)
    if any(map(is_partitioned, model.parameters())):
        raise refuse("a model under ZeRO-3, whose weights are partitioned", ENGINES)
