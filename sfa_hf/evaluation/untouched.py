"""Evaluation leaves no trace: the training that goes on after it is, bit for bit, the one without it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards modules, shards and random states are as before.

    ``no_grad`` rather than ``inference_mode``: ZeRO-3 and FSDP gather parameters during the forward pass, and
    a parameter gathered as an inference tensor cannot be trained afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), _random_states_kept(), _plain_generation(model):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
            if isinstance(module, FSDPModule):
                # its root stays gathered after a forward pass without backward: plain tensors in place of
                # shards, and their memory
                module.reshard()


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _plain_generation(model: nn.Module) -> Iterator[None]:
    """Set aside what a checkpoint's generation_config.json asks for (sampling, a repetition penalty, ...).

    ``generate`` fills in whatever its caller leaves open from there. An adapter's wrapper and its base model
    hold one each.
    """
    holders = [module for module in model.modules() if "generation_config" in vars(module)]
    kept = [module.generation_config for module in holders]
    try:
        for module in holders:
            module.generation_config = GenerationConfig()
        yield
    finally:
        for module, config in zip(holders, kept, strict=True):
            module.generation_config = config
