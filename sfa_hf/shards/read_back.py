"""Whether what a model saves can be read again by slices, known from its shapes alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from sfa_hf.errors import ConfigError
from sfa_hf.shards.converted import in_memory


class _Shape(NamedTuple):
    """A tensor that will be stored."""

    shape: tuple[int, ...]


def unreadable_tensor(model: PreTrainedModel) -> str | None:
    """A parameter that could not be read from what ``save_pretrained`` would write; None if all can.

    Args:
        model: may be on "meta".
    """
    saved: Any = revert_weight_conversion(model, dict(model.state_dict()))
    stored: Any = [(name, _Shape(tuple(tensor.shape))) for name, tensor in saved.items()]
    try:
        read = {name: named.tensor.shape for name, named in in_memory(stored, model)}
    except ConfigError as error:
        return error.problem
    tied = {id(p): name for name, p in model.named_parameters(remove_duplicate=False) if name in read}
    for name, parameter in model.named_parameters():
        if read.get(tied.get(id(parameter), name)) != tuple(parameter.shape):
            return name
    return None
