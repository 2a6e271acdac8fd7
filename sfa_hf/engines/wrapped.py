"""The model inside the wrappers that a training loop calls it by."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sfa_hf.engines.deepspeed.find import find_deepspeed_engine


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of DDP, DeepSpeed and ``torch.compile``.

    accelerate's own function would import DeepSpeed, in seconds, wherever it is installed.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)  # of torch.compile
        if isinstance(model, DataParallel | DistributedDataParallel):
            inner = model.module
        elif (trained_by := find_deepspeed_engine(model)) is model and trained_by is not None:
            inner = trained_by.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
