"""SFACallback(rule="fisher"): each entry weighed by the second moments of this task and of those before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from sfa_hf import SecondMomentsCallback, SFACallback
from sfa_hf.engines import Shard
from sfa_hf.moment_folder import MomentFolder
from tests.tiny_training import BeforeAndAfter, Watch, tiny_model, train

BETA2 = 0.95
ADAM = {"adam_beta2": BETA2}
HALF_AN_ULP = 0.5 + 1e-6
EPSILON = 1e-6


class Moments(TrainerCallback):
    """Copies F of each step, bias-corrected here from torch's own state."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
        self.at[state.global_step] = {
            name: f_of(optimizer, p) for name, p in model.named_parameters() if p.requires_grad
        }


def f_of(optimizer: Any, parameter: nn.Parameter) -> Tensor:
    kept = optimizer.state.get(parameter)
    if not kept:
        return torch.zeros_like(parameter, dtype=torch.float64)
    return kept["exp_avg_sq"].double() / (1 - BETA2 ** int(kept["step"]))


def expected(
    theta: Tensor, theta_o: Tensor, f: Tensor, f_o: Tensor | None, *, beta: float, power: float
) -> Tensor:
    """The formula as the paper would write it, in float64."""
    f_o = torch.full_like(f, f.mean()) if f_o is None else f_o.double()
    epsilon = EPSILON * ((f.sum() + f_o.sum()) / (2 * f.numel()) or 1.0)
    w_o, w = beta * (f_o + epsilon) ** power, (1 - beta) * (f + epsilon) ** power
    return (w_o * theta_o.double() + w * theta.double()) / (w_o + w)


def ulps(exact: Tensor, found: Tensor, *operands: Tensor) -> float:
    largest = np.max([t.abs().numpy() for t in (found, *operands)], axis=0, initial=0).astype(np.float32)
    return float(np.max(np.abs(exact.numpy() - found.double().numpy()) / np.spacing(largest), initial=0))


def first_task(folder: Path, model: nn.Module, **changes: Any) -> dict[str, Tensor]:
    """Train a first task; return F_1, and leave the model beside its moments."""
    moments = Moments()
    train(folder, [moments, SecondMomentsCallback()], model=model, **ADAM, **changes)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder / "model")
    return moments.at[8]


def saved_moments(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    kept = MomentFolder(folder)
    return {
        name: kept.read(Shard(name, p.data.view(-1), 0, p.shape)).view(p.shape)
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def second_task(
    folder: Path, model: nn.Module, callback: SFACallback, **changes: Any
) -> tuple[Trainer, Watch, Watch, Moments]:
    before, after, moments = Watch(), BeforeAndAfter(), Moments()
    return (
        train(folder, [before, moments, callback, after], model=model, **ADAM, **changes),
        before,
        after,
        moments,
    )


@pytest.mark.parametrize("anchor_device", ["cpu", "disk"])
@pytest.mark.parametrize(("beta", "power"), [(0.3, 0.5), (0.7, 1.0)])
def test_each_merge_is_the_weighted_one_in_float64_and_the_moments_are_handed_on(
    tmp_path: Path, anchor_device: str, beta: float, power: float
) -> None:
    model = tiny_model()
    f_1 = first_task(tmp_path / "a", model)
    stored = saved_moments(tmp_path / "a" / "second_moments", model)
    assert all(stored[name].equal(f.float()) for name, f in f_1.items())
    callback = SFACallback(
        beta, 0.5, rule="fisher", power=power, anchor=tmp_path / "a" / "model", anchor_device=anchor_device
    )
    trainer, before, after, moments = second_task(tmp_path / "b", model, callback)
    for step in (4, 8):
        for name, theta_o in before.at[0].items():
            theta, f = before.at[step][name], moments.at[step][name]
            exact = expected(theta, theta_o, f, stored[name], beta=beta, power=power)
            assert ulps(exact, after.at[step][name], theta, theta_o) <= HALF_AN_ULP
    assert [e["step"] for e in trainer.state.log_history if "sfa/merge" in e] == [4, 8]
    for name, f_bar in saved_moments(tmp_path / "b" / "second_moments", model).items():
        exact = beta * stored[name].double() + (1 - beta) * moments.at[8][name]
        assert torch.allclose(f_bar.double(), exact, rtol=1e-6, atol=0)
    facts = MomentFolder(tmp_path / "b" / "second_moments").facts
    assert (facts.tasks, facts.steps, facts.beta2, facts.alpha) == (2, 8, BETA2, 1 - beta)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["second_moments"]
