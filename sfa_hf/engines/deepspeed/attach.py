"""Choose the engine of a model that DeepSpeed trains, or refuse the set-up by name."""

from __future__ import annotations

from typing import Any

import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import nn

from sfa_hf.engines.base import Engine
from sfa_hf.engines.deepspeed.find import find_deepspeed_engine
from sfa_hf.engines.deepspeed.refusals import refuse_unsupported_deepspeed
from sfa_hf.engines.deepspeed.zero0 import Fp32Zero0Engine, Zero0Engine
from sfa_hf.engines.deepspeed.zero1_bf16 import Bf16Zero1Engine
from sfa_hf.engines.deepspeed.zero3 import Zero3Engine
from sfa_hf.engines.deepspeed.zero12 import Zero12Engine
from sfa_hf.engines.optimizers import unwrap
from sfa_hf.engines.refusals import refusal


def attach_deepspeed(model: nn.Module, optimizer: Any) -> Engine:
    """Build the engine for a model under ``deepspeed.initialize``, directly or through accelerate.

    Args:
        model: the unwrapped model or its ``DeepSpeedEngine``.
        optimizer: DeepSpeed's optimizer, bare or in accelerate's wrapper.

    Raises:
        NotImplementedError: the set-up is not one of those in which a merge was checked; it is named.
    """
    engine = find_deepspeed_engine(model)
    if engine is None:
        raise refusal("a model that no DeepSpeedEngine was initialised on")
    refuse_unsupported_deepspeed(engine)
    return _choose(engine, unwrap(optimizer))


def _choose(engine: DeepSpeedEngine, optimizer: Any) -> Engine:
    kind, model, stage = type(optimizer), engine.module, int(engine.zero_optimization_stage())
    if kind is DeepSpeedZeroOptimizer_Stage3:
        return Zero3Engine(model, optimizer)
    if kind is DeepSpeedZeroOptimizer:
        return Zero12Engine(f"zero{stage}", model, optimizer)
    if kind is BF16_Optimizer:
        return Bf16Zero1Engine(model, optimizer)
    if kind in (FP16_Optimizer, FP16_UnfusedOptimizer):
        return Zero0Engine(model, optimizer)
    if stage == 0 and isinstance(optimizer, torch.optim.Optimizer):
        return Fp32Zero0Engine(model, optimizer, engine)
    raise refusal(f"DeepSpeed's {kind.__module__}.{kind.__qualname__}")
