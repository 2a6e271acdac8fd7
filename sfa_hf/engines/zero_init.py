"""Loading a model under ZeRO-3, so that no process ever holds it whole."""

from __future__ import annotations

import torch.distributed
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


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
