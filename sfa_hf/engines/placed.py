"""A model that is only scored, held as its engine would hold it after training."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations.deepspeed import deepspeed_init, is_deepspeed_zero3_enabled

from sfa_hf.engines.deepspeed.compute_copy import cast_as_deepspeed


def placed(model: PreTrainedModel, arguments: TrainingArguments) -> nn.Module:
    """Put a loaded model where, and into the precision in which, the Trainer would hold it after training."""
    trainer = Trainer(model=model, args=arguments)
    if is_deepspeed_zero3_enabled():
        deepspeed_init(trainer, num_training_steps=0, inference=True)
        trainer.accelerator.prepare(model)
        return model
    if trainer.is_deepspeed_enabled:
        if arguments.bf16 or arguments.fp16:
            cast_as_deepspeed(model, torch.bfloat16 if arguments.bf16 else torch.float16)
        return model.to(arguments.device)
    return trainer.accelerator.prepare_model(model, evaluation_mode=True)
