"""O-LoRA's penalty against autograd, in a real training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer

from sfa_hf.callbacks.orthogonal import OrthogonalCallback
from sfa_hf.errors import ConfigError
from tests.tiny_training import arguments, rows, tiny_model

peft = pytest.importorskip("peft")

RATE, STRENGTH = 0.1, 0.01


def adapted(seed: int, **options: Any) -> Any:
    model = tiny_model()
    torch.manual_seed(seed)
    return peft.get_peft_model(model, peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **options}))


def trained(folder: Path, past: Path, strength: float) -> tuple[dict[str, Tensor], Trainer]:
    settings = {"optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    args = arguments(folder, max_steps=1, gradient_accumulation_steps=2, logging_steps=1, **settings)
    callback = OrthogonalCallback(str(past), strength)
    trainer = Trainer(adapted(1), args, train_dataset=rows(), callbacks=[callback])  # type: ignore[arg-type]
    trainer.train()
    return {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}, trainer


def test_the_gradient_is_that_of_the_penalty(tmp_path: Path) -> None:
    past = adapted(2, r=3)
    past.save_pretrained(tmp_path / "past")
    (free, _), (held, trainer) = (trained(tmp_path, tmp_path / "past", each) for each in (0.0, STRENGTH))
    then = {n: p.detach() for n, p in past.named_parameters() if "lora_A" in n}
    overlap = 0.0
    for name, start in adapted(1).named_parameters():
        if name not in free:
            continue
        penalty = (then[name] @ start.mT).abs().sum() if name in then else 0 * start.sum()
        (slope,) = torch.autograd.grad(penalty, start)
        torch.testing.assert_close(free[name] - held[name], RATE * STRENGTH * slope, atol=1e-7, rtol=1e-4)
        if name in then:
            assert slope.any()
            overlap += float((then[name] @ held[name].mT).abs().sum())
    logged = [entry["olora/overlap"] for entry in trainer.state.log_history if "olora/overlap" in entry]
    assert logged == [pytest.approx(overlap, rel=1e-5)]


def test_adapters_of_other_layers_are_refused(tmp_path: Path) -> None:
    adapted(2, target_modules=["k_proj"]).save_pretrained(tmp_path / "past")
    with pytest.raises(ConfigError, match=r"past: .* has no A of .*q_proj"):
        trained(tmp_path, tmp_path / "past", 1.0)
    with pytest.raises(ConfigError, match=r"name: .*embed_tokens has no A and B of a linear layer"):
        OrthogonalCallback("past").check_model(adapted(0, target_modules=["embed_tokens"]))
