"""Models of a few thousand weights of the three families, and float64 throughout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 13
CLASSES = {
    "pythia": (GPTNeoXConfig, GPTNeoXForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen": (Qwen2Config, Qwen2ForCausalLM),
}


def tiny(family: str, **changes: Any) -> PreTrainedModel:
    config, model = CLASSES[family]
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    shape |= {} if family == "pythia" else {"num_key_value_heads": 1}
    shape |= {"vocab_size": VOCABULARY, "max_position_embeddings": 48, "initializer_range": 0.4}
    shape |= {"bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    return model(config(**{**shape, **changes}))


@torch.no_grad()
def nudge(model: torch.nn.Module, size: float, seed: int = 5) -> None:
    """Move every parameter that is trained."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * step.to(parameter.dtype))


def batch(rows: int = 2, length: int = 5) -> dict[str, Tensor]:
    """Tokens whose first row is padded on the right."""
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


class _Wide(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        wide = [torch.float64 if each is torch.float32 else each for each in args]
        named = {
            key: torch.float64 if each is torch.float32 else each for key, each in (kwargs or {}).items()
        }
        return func(*wide, **named)


@contextmanager
def float64_throughout() -> Iterator[None]:
    """The models cast to float32 in softmax and norms, whatever their weights: here those are float64 too."""
    with _Wide():
        yield
