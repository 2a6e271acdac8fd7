"""Which few parameters a correction trains, found by looking at the model."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from sfa_hf.config.options import EXPRESSION
from sfa_hf.errors import ConfigError, under


def default_parameters(model: nn.Module, layer: int = -1) -> str:
    """Regular expression for what writes the features of a layer last, and nothing after it.

    For the last layer: the final norm, and the last block's output projection, which writes the MLP's result
    to the residual stream (``mlp.down_proj``, or ``mlp.dense_4h_to_h`` of GPT-NeoX). It is what CMM's visual
    projection is to a vision model: the last linear map before the features. For an earlier layer, the
    output projection of the block that it comes from.

    Args:
        model: a causal language model; a PEFT wrapper is looked through.
        layer: position in ``hidden_states``: 0 the embedding, -1 the last one, after the final norm.

    Raises:
        ConfigError: the model is built otherwise, or the layer is none of its blocks'.
    """
    blocks_name, blocks = _blocks(model)
    index = layer % (len(blocks) + 1) if -len(blocks) - 1 <= layer <= len(blocks) else 0
    if index == 0:
        right = f"1 to {len(blocks)}, or -{len(blocks)} to -1"
        raise ConfigError("layer", f"{layer} is not a block's of {len(blocks)}", right)
    projection = f"{blocks_name}.{index - 1}.{_output_projection(model, blocks[index - 1])}"
    names = [projection] + ([_final_norm(model, blocks_name)] if index == len(blocks) else [])
    return rf"^({'|'.join(re.escape(name) for name in names)})\."


def select(model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """The parameters in whose name ``pattern`` is found.

    Raises:
        ConfigError: it is not a regular expression, or is found in none.
    """
    with under("parameters"):
        compiled = re.compile(EXPRESSION(pattern))
    chosen = {name: p for name, p in model.named_parameters() if compiled.search(name)}
    if not chosen:
        names = [name for name, _ in model.named_parameters()]
        shown = ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in names))
        raise ConfigError("parameters", f"{pattern!r} is found in no parameter's name", f"names: {shown}")
    return chosen


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    config: Any = model.config
    count = config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise _unknown(model, f"a list of {count} blocks")


def _output_projection(model: nn.Module, block: nn.Module) -> str:
    """The last linear map of a block whose result has the residual stream's width."""
    config: Any = model.config
    maps = [name for name, each in block.named_modules() if _width(each) == config.hidden_size]
    if not maps:
        raise _unknown(model, "a linear map to the hidden size in its last block")
    return maps[-1]


def _width(module: nn.Module) -> int | None:
    # by their attributes: PEFT's wrapper of a linear map has them too
    has_map = hasattr(module, "in_features") and hasattr(module, "weight")
    return getattr(module, "out_features", None) if has_map else None


def _final_norm(model: nn.Module, blocks: str) -> str:
    """The norm beside the list of blocks."""
    parent = blocks.rpartition(".")[0]
    for name, module in model.get_submodule(parent).named_children():
        if "norm" in type(module).__name__.lower():
            return f"{parent}.{name}" if parent else name
    raise _unknown(model, f"a norm beside {blocks}")


def _unknown(model: nn.Module, lack: str) -> ConfigError:
    return ConfigError(
        "parameters", f"have no default for {type(model).__name__}: it has not {lack}", "a regular expression"
    )
