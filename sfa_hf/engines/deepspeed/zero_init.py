"""A model under ZeRO-3 from its loading on: no process ever holds it whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from torch import nn
from transformers.integrations import deepspeed as integration
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


def saved_bytes(model: nn.Module) -> int:
    """Bytes that a model's weights take in files; under ZeRO-3 those of all processes."""
    weights = model.parameters()  # tied ones once, as in files
    return sum(getattr(weight, "ds_numel", weight.numel()) * weight.element_size() for weight in weights)


@contextmanager
def whole_models() -> Iterator[None]:
    """Let this process alone load models, whole: under ZeRO-3 it would wait for the others to take part."""
    reference = integration._hf_deepspeed_config_weak_ref
    config = None if reference is None else reference()
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            integration.set_hf_deepspeed_config(config)


def join_deepspeed() -> None:
    """Let DeepSpeed join the process group that is there, before a model is loaded under ZeRO-3.

    ``from_pretrained`` partitions the weights while it reads them (``zero.Init``), and that takes the number
    of processes from DeepSpeed's own communication layer. The Trainer opens it on a GPU; on the CPU nobody
    does, and DeepSpeed would count one process. Does nothing without ZeRO-3.
    """
    if not is_deepspeed_zero3_enabled():
        return
    import deepspeed  # noqa: PLC0415 - DeepSpeed is an optional extra

    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False)
