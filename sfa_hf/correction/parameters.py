"""The few parameters that a correction trains by default, found in the model."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from sfa_hf.config.options import EXPRESSION
from sfa_hf.config.patterns import compiled
from sfa_hf.errors import ConfigError, under


def default_parameters(model: nn.Module, layer: int = -1) -> str:
    """Return a regular expression for the parameters that write the features of a layer last.

    For the last layer these are the final norm and the output projection of the last block, which writes the
    result of the MLP to the residual stream (``mlp.down_proj``, or ``mlp.dense_4h_to_h`` of GPT-NeoX). It
    corresponds to the visual projection of CMM, the last linear map before the features of a vision model.
    For an earlier layer it is the output projection of the block that ends there.

    Args:
        model: a causal language model, or a PEFT model of one.
        layer: position in ``hidden_states``; 0 is the embedding, -1 the last one, after the final norm.

    Raises:
        ConfigError: the model has another structure, or the layer is not the output of a block.
    """
    blocks_name, blocks = _blocks(model)
    index = layer % (len(blocks) + 1) if -len(blocks) - 1 <= layer <= len(blocks) else 0
    if index == 0:
        right = f"1 to {len(blocks)}, or -{len(blocks)} to -1"
        raise ConfigError("layer", f"{layer} is not the output of one of {len(blocks)} blocks", right)
    projection = f"{blocks_name}.{index - 1}.{_output_projection(model, blocks[index - 1])}"
    names = [projection] + ([_final_norm(model, blocks_name)] if index == len(blocks) else [])
    return rf"^({'|'.join(re.escape(name) for name in names)})\."


def select(model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """Return the parameters in whose name ``pattern`` is found.

    Raises:
        ConfigError: it is not a regular expression, or no name matches.
    """
    with under("parameters"):
        found = compiled(EXPRESSION(pattern))
        chosen = {name: p for name, p in model.named_parameters() if found.found_in(name)}
    if not chosen:
        names = [name for name, _ in model.named_parameters()]
        shown = ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in names))
        raise ConfigError("parameters", f"{pattern!r} matches no parameter", f"one of: {shown}")
    return chosen


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    config: Any = model.config
    count = config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise _unknown(model, f"a list of {count} blocks")


def _output_projection(model: nn.Module, block: nn.Module) -> str:
    """Return the last linear map of a block whose output has the width of the residual stream."""
    config: Any = model.config
    maps = [name for name, each in block.named_modules() if _width(each) == config.hidden_size]
    if not maps:
        raise _unknown(model, "a linear map to the hidden size in its last block")
    return maps[-1]


def _width(module: nn.Module) -> int | None:
    # by attributes, because PEFT's wrapper of a linear map has them too
    has_map = hasattr(module, "in_features") and hasattr(module, "weight")
    return getattr(module, "out_features", None) if has_map else None


def _final_norm(model: nn.Module, blocks: str) -> str:
    """Return the name of the norm beside the list of blocks."""
    parent = blocks.rpartition(".")[0]
    for name, module in model.get_submodule(parent).named_children():
        if "norm" in type(module).__name__.lower():
            return f"{parent}.{name}" if parent else name
    raise _unknown(model, f"a norm beside {blocks}")


def _unknown(model: nn.Module, lack: str) -> ConfigError:
    return ConfigError(
        "parameters", f"has no default for {type(model).__name__}, which lacks {lack}", "a regular expression"
    )
