"""Saved models of a few thousand weights, made from configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sfa_hf.checkpoints import Merged, make_recipe, merge_checkpoints


def tiny_llama(seed: int = 0, dtype: torch.dtype = torch.bfloat16, **change: Any) -> PreTrainedModel:
    options = {"vocab_size": 320, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    config = LlamaConfig(hidden_size=32, **{**options, **change})
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).to(dtype)


def saved(folder: Path, seed: int = 0, *, max_shard_size: str = "50GB", **change: Any) -> str:
    tiny_llama(seed, **change).save_pretrained(folder, max_shard_size=max_shard_size)
    return str(folder)


def stored(folder: Path | str) -> dict[str, Tensor]:
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no mapping
    return found


def merge(out: Path, **recipe: Any) -> Merged:
    return merge_checkpoints(make_recipe(recipe), out)
