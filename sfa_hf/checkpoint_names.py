"""Under which of a model's parameter names a checkpoint's tensor is loaded.

transformers renames parameters between versions and keeps the old names in the files it writes (GPT-NeoX's
``lm_head.weight`` is saved as ``embed_out.weight``); ``from_pretrained`` maps them back, and so does this.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter

from sfa_hf.errors import ConfigError


def model_names(keys: Iterable[str], model: nn.Module) -> dict[str, str]:
    """Map each key of a checkpoint to the name that ``model`` has for it.

    Raises:
        ConfigError: the model's class computes this tensor from several of the checkpoint's (fused experts),
            so that no slice of it can be read alone.
    """
    if not isinstance(model, PreTrainedModel):
        return {key: key for key in keys}
    transforms = get_model_conversion_mapping(model)
    return {key: _renamed(key, transforms) for key in keys}


def _renamed(key: str, transforms: Iterable[object]) -> str:
    name = key
    for transform in transforms:
        new, matched = transform.rename_source_key(name)  # type: ignore[attr-defined]
        if matched is not None and isinstance(transform, WeightConverter):
            right = "anchor=None, or a model whose parameters are stored as they are trained"
            raise ConfigError("anchor", f"{key} is one of several tensors that make up {new}", right)
        name = new
    return name
