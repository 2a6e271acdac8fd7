"""The plain engine's gradients: reduced, unscaled and editable before clipping."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from tiny_training import rows, tiny_model
from torch import nn

from sfa_hf import engines


def test_the_handle_ends_it() -> None:
    model = nn.Linear(3, 1)
    engine = engines.attach(model, torch.optim.SGD(model.parameters()))
    calls: list[str] = []
    handle = engine.before_step(lambda _: calls.append("called"))
    model(torch.ones(2, 3)).sum().backward()
    handle.remove()
    model(torch.ones(2, 3)).sum().backward()
    assert calls == ["called"]


def test_the_loss_scale_is_out_of_the_gradients_while_they_are_looked_at() -> None:
    Accelerator(cpu=True)
    model = nn.Linear(3, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = AcceleratedOptimizer(
        torch.optim.SGD(model.parameters()), device_placement=False, scaler=scaler
    )
    engine = engines.attach(model, optimizer)
    seen: dict[str, torch.Tensor] = {}

    def double_them(engine: engines.Engine) -> None:
        for shard in engine.shards():
            seen[shard.name] = engine.gradient(shard).clone()
            engine.gradient(shard).mul_(2)

    engine.before_step(double_them)
    scaler.scale(model(torch.ones(2, 3)).sum()).backward()
    assert seen["weight"].tolist() == [2, 2, 2]
    assert model.weight.grad.tolist() == [[4 * 1024] * 3]


def test_gradient_checkpointing_is_supported_unless_reentrant() -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters())
    calls: list[str] = []
    model.gradient_checkpointing_enable({"use_reentrant": False})
    engines.attach(model, optimizer).before_step(lambda _: calls.append("called"))
    batch = {key: value[None] for key, value in rows(1)[0].items()}
    model.train()(**batch).loss.backward()
    assert calls == ["called"]
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(NotImplementedError, match="reentrant"):
        engines.attach(model, optimizer).before_step(lambda _: None)


def test_optimizer_state_is_the_moments_once_there_are_any() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    engine = engines.attach(model, optimizer)
    weight, _ = engine.shards()
    assert engine.optimizer_state("exp_avg", weight) is None
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = engine.optimizer_state("exp_avg", weight)
    state.zero_()
    assert optimizer.state[model.weight]["exp_avg"].abs().sum() == 0
    assert engine.optimizer_state("step", weight) is None
    assert engine.optimizer_state("momentum_buffer", weight) is None
