"""What transformers knows of a saved model: imported only where models differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from sfa_hf.checkpoints.folder import SavedModel


def tied_names(model: SavedModel) -> dict[str, str]:
    """Names of tied tensors, each with the name under which save_pretrained stores it; none where unknown.

    Read from the model's class, built without memory for weights.
    """
    config = AutoConfig.from_pretrained(model.folder, trust_remote_code=False)
    kind = AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModel
    with torch.device("meta"):
        return dict(kind.from_config(config, trust_remote_code=False).all_tied_weights_keys)


def whole_config(model: SavedModel) -> Mapping[str, Any]:
    """A model's config with all defaults, in the form of this version; else as it is stored."""
    try:
        return AutoConfig.from_pretrained(model.folder, trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError, TypeError):  # an architecture that transformers does not have
        return model.config
