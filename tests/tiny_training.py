"""A Trainer on a model of a few thousand weights, and callbacks that watch the weights from inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

VOCABULARY = 61


def tiny_model(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    changes = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, **sizes, **changes}
    return LlamaForCausalLM(LlamaConfig(**changes))


class Odd(nn.Module):
    """Parameters of every awkward kind."""

    def __init__(self, scale: float | list[float] = 1.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 7)
        self.head = nn.Linear(7, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.randn(7), requires_grad=False)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.unused = nn.Parameter(torch.randn(5, 13))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.embed(input_ids) * self.scale + self.frozen + self.empty.sum()
        return {"loss": nn.functional.cross_entropy(self.head(hidden).flatten(0, 1), labels.flatten())}


def rows(count: int = 64, seed: int = 1) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(0, VOCABULARY, (12,), generator=generator) for _ in range(count)]
    return [{"input_ids": row, "labels": row} for row in tokens]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings = {
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **changes,
    }
    return TrainingArguments(str(folder), **settings)


def train(
    folder: Path, callbacks: list[TrainerCallback], model: nn.Module | None = None, **changes: Any
) -> Trainer:
    resume = changes.pop("resume_from_checkpoint", None)
    trainer = Trainer(
        model or tiny_model(),
        arguments(folder, **changes),
        train_dataset=rows(),
        eval_dataset=rows(8, seed=2),
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class Watch(TrainerCallback):
    """Copies the weights at the start and at each step's end: put one before and one after the callback."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = weights(model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = weights(model)


class BeforeAndAfter(Watch):
    """One of two watches: Trainer warns of two callbacks of the same class."""


def worst_ulp(before: Tensor, theta_o: Tensor, after: Tensor, beta: float) -> float:
    """Largest error of ``after`` against the average in float64, in fp32 ulps of the largest of the three."""
    theta, anchor, merged = (tensor.double().numpy().ravel() for tensor in (before, theta_o, after))
    largest = np.max(np.abs([theta, anchor, merged]), axis=0, initial=0).astype(np.float32)
    error = np.abs(merged - ((1 - beta) * theta + beta * anchor))
    return float(np.max(error / np.spacing(largest), initial=0))
