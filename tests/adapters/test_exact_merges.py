r"""Merges of adapters are averages of the weights that they make: in float64, kind by kind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from effective import Effective, EffectiveAfter, error
from tiny_training import VOCABULARY, tiny_model, train
from torch import nn
from transformers import Trainer

from sfa_hf import SFACallback

peft = pytest.importorskip("peft")

LINEAR = ["q_proj", "down_proj"]


class Convolutions(nn.Module):
    """A language model of one convolution, in groups or not, and a fused pair of experts."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.conv = nn.Conv1d(8, 12, 3, padding=1, groups=groups)
        self.experts = Experts()
        self.biased = nn.Linear(12, 10)
        self.head = nn.Linear(10, VOCABULARY)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.tanh(self.conv(self.embed(input_ids).mT).mT)
        logits = self.head(torch.tanh(self.biased(hidden + self.experts(hidden))))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 12, 12) * 0.1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return (torch.einsum("bsi,eoi->bseo", hidden, self.weight)).tanh().sum(2)


def adapted(config: Any, seed: int = 0, groups: int = 0) -> nn.Module:
    own = (
        groups
        or {"conv", "biased"} & set(config.target_modules or ())
        or getattr(config, "target_parameters", None)
    )
    model = Convolutions(groups or 1) if own else tiny_model()
    torch.manual_seed(seed)
    return peft.get_peft_model(model, copy.deepcopy(config))


def merged(
    folder: Path, model: nn.Module, beta: float = 0.3, **options: object
) -> tuple[Trainer, dict, dict, dict]:
    before, after = Effective(), EffectiveAfter()
    trainer = train(
        folder,
        [before, SFACallback(beta, 1.0, **options), after],
        model=model,
        max_steps=3,
        learning_rate=3e-2,
    )
    return trainer, before.at[0], before.at[3], after.at[3]


FROM_BASE = {
    "LoRA": peft.LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR),
    "rsLoRA": peft.LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=LINEAR),
    "DoRA": peft.LoraConfig(r=2, lora_alpha=5, use_dora=True, target_modules=LINEAR),
    "DoRA, embedding": peft.LoraConfig(r=2, lora_alpha=5, use_dora=True, target_modules=["embed_tokens"]),
    "patterns": peft.LoraConfig(
        r=2, target_modules=LINEAR, rank_pattern={"q_proj": 4}, alpha_pattern={"down_proj": 12}
    ),
    "embedding": peft.LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"]),
    "modules_to_save": peft.LoraConfig(r=2, target_modules=LINEAR, modules_to_save=["lm_head"]),
    "tokens": peft.LoraConfig(r=2, target_modules=LINEAR, trainable_token_indices=[1, 5, 7]),
    "MiCA": peft.LoraConfig(r=2, target_modules=LINEAR, init_lora_weights="mica"),
    "AdaLoRA": peft.AdaLoraConfig(init_r=3, total_step=100, target_modules=LINEAR),
    "IA3": peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"]),
    "LoHa": peft.LoHaConfig(r=2, alpha=3, target_modules=LINEAR),
    "LoKr": peft.LoKrConfig(r=2, alpha=3, target_modules=LINEAR),
    "VeRA": peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "RandLoRA": peft.RandLoraConfig(r=2, target_modules=["q_proj"]),
    "MiSS": peft.MissConfig(r=2, target_modules=["q_proj"]),
    "SHiRA": peft.ShiraConfig(r=2, target_modules=LINEAR),
    "LN tuning": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "FourierFT": peft.FourierFTConfig(n_frequency=20, target_modules=LINEAR),
    "WaveFT": peft.WaveFTConfig(n_frequency=24, target_modules=["q_proj"]),
    "C3A": peft.C3AConfig(block_size=4, target_modules=["q_proj"]),
    "lora_bias": peft.LoraConfig(r=2, target_modules=["biased"], lora_bias=True, bias="lora_only"),
    "convolution": peft.LoraConfig(r=2, target_modules=["conv"]),
    "convolution, DoRA": peft.LoraConfig(r=2, target_modules=["conv"], use_dora=True),
    "experts": peft.LoraConfig(r=2, target_modules=[], target_parameters=["experts.weight"]),
    "HiRA": peft.HiraConfig(r=2, target_modules=LINEAR),
    "GraLoRA": peft.GraloraConfig(r=4, hybrid_r=2, gralora_k=2, target_modules=LINEAR),
}


@pytest.mark.parametrize("kind", FROM_BASE)
def test_from_the_base_the_weights_are_the_average(tmp_path: Path, kind: str) -> None:
    trainer, start, before, after = merged(tmp_path, adapted(FROM_BASE[kind]))
    assert error(before, start, after, 0.3) < 5e-6  # FourierFT computes in fp32
    (entry,) = [entry for entry in trainer.state.log_history if "sfa/merge" in entry]
    assert entry.get("sfa/lora_discarded", 0.0) == 0.0


FROM_ADAPTER = {
    "LoRA": peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR, init_lora_weights=False),
    "rsLoRA": peft.LoraConfig(r=3, use_rslora=True, target_modules=LINEAR, init_lora_weights=False),
    "PiSSA": peft.LoraConfig(r=3, target_modules=LINEAR, init_lora_weights="pissa"),
    "OLoRA": peft.LoraConfig(r=3, target_modules=LINEAR, init_lora_weights="olora"),
    "embedding": peft.LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False),
    "convolution": peft.LoraConfig(r=2, target_modules=["conv"], init_lora_weights=False),
    "experts": peft.LoraConfig(
        r=2, target_modules=[], target_parameters=["experts.weight"], init_lora_weights=False
    ),
}


def best(average: torch.Tensor, base: torch.Tensor, rank: int, kind: str) -> torch.Tensor:
    """The base plus the best approximation of the update, of that rank, by an SVD of the whole matrix."""
    update = average - base
    matrix = update if kind == "experts" else update.reshape(update.shape[0], -1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s[..., rank:] = 0
    return base + ((u * s[..., None, :]) @ vh).reshape(base.shape)


@pytest.mark.parametrize("kind", FROM_ADAPTER)
def test_from_an_adapter_the_update_is_the_best_of_its_rank(tmp_path: Path, kind: str) -> None:
    config, beta = FROM_ADAPTER[kind], 0.4
    model = adapted(config)
    base = {
        n.replace(".base_layer", "").removeprefix("base_model.model."): p.detach().double().clone()
        for n, p in model.named_parameters()
    }
    trainer, start, before, after = merged(tmp_path, model, beta)
    distance = max((before[n] - start[n]).norm() for n in start)
    energy = discarded = 0.0
    for name, theta_o in start.items():
        average = (1 - beta) * before[name] + beta * theta_o
        if before[name].equal(theta_o):
            continue
        right = best(average, base[name], config.r, kind)
        assert (after[name] - right).norm() < 1e-5 * distance
        discarded += float((average - right).square().sum())
        energy += float((average - base[name]).square().sum())
    (entry,) = [entry for entry in trainer.state.log_history if "sfa/merge" in entry]
    assert discarded > 0
    assert entry["sfa/lora_discarded"] == pytest.approx(discarded / energy, rel=1e-3)
    for key, weights in (("sfa/drift_before", before), ("sfa/drift_after", after)):
        drift = sum(float((weights[n] - start[n]).square().sum()) for n in start) ** 0.5
        assert entry[key] == pytest.approx(drift, rel=1e-4)


def test_dora_from_an_adapter_is_the_average_where_the_rank_holds_it(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=24, use_dora=True, target_modules=LINEAR, init_lora_weights=False)
    trainer, start, before, after = merged(tmp_path, adapted(config))
    assert error(before, start, after, 0.3) < 1e-5
    (entry,) = [entry for entry in trainer.state.log_history if "sfa/merge" in entry]
    drift = sum(float((after[n] - start[n]).square().sum()) for n in start) ** 0.5
    assert entry["sfa/drift_after"] == pytest.approx(drift, rel=1e-5)
