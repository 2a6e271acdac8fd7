"""L2: in the loss, against a training in float64 that has it there; decoupled, against its closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from sfa_hf import L2Callback, PullCallback, SFACallback
from sfa_hf.errors import ConfigError
from tests.penalised import CLIP, RATE, STRENGTH, InOrder, l2, reference
from tests.tiny_training import Odd, Watch, arguments, rows, tiny_model, train, weights

SGD = {"optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": CLIP}
CHECKPOINTS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
FORMS: dict[str, Any] = {
    "loss": L2Callback,
    "decoupled": PullCallback,
    "loss, anchor on disk": lambda: L2Callback(anchor_device="disk"),
    "loss, bf16 anchor": lambda: L2Callback(anchor_dtype="bfloat16"),
}


def logged(trainer: Any, prefix: str) -> dict[int, dict[str, float]]:
    return {
        entry["step"]: {key: value for key, value in entry.items() if key.startswith(prefix)}
        for entry in trainer.state.log_history
        if any(key.startswith(prefix) for key in entry)
    }


@pytest.mark.parametrize("accumulation", [1, 2])
def test_it_equals_a_penalty_in_the_loss_clipping_included(tmp_path: Path, accumulation: int) -> None:
    args = arguments(tmp_path, gradient_accumulation_steps=accumulation, max_steps=6, **SGD)
    model = Odd()
    InOrder(model, args, train_dataset=rows(), callbacks=[L2Callback(STRENGTH)]).train()
    found = weights(model)
    for name, expected in reference(Odd(), rows(), steps=6, batch=4 * accumulation).items():
        assert torch.allclose(found[name].double(), expected, rtol=0, atol=1e-6), name


def test_without_it_the_weights_are_others(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=6, **SGD)
    model = Odd()
    InOrder(model, args, train_dataset=rows(), callbacks=[L2Callback(0.0)]).train()
    assert (weights(model)["scale"] - reference(Odd(), rows(), 6, 4)["scale"]).abs() > 1e-4


def test_the_penalty_and_the_drift_are_logged_with_the_trainers_own(tmp_path: Path) -> None:
    watch = Watch()
    trainer = train(tmp_path, [L2Callback(STRENGTH), watch], logging_steps=3)
    found = logged(trainer, "l2/")
    assert list(found) == [3, 6, 8]
    for step, record in found.items():
        now, start = ({n: w.double() for n, w in watch.at[at].items()} for at in (step, 0))
        expected = l2(now, start).item()
        assert record["l2/penalty"] == pytest.approx(expected, rel=1e-6)
        assert record["l2/drift"] == pytest.approx((2 * expected / STRENGTH) ** 0.5, rel=1e-6)


def test_parameters_left_out_are_not_penalised(tmp_path: Path) -> None:
    free, held = Watch(), Watch()
    plain = {"max_steps": 2, "max_grad_norm": 1e9, "optim": "sgd"}
    train(tmp_path, [free], **plain)
    train(tmp_path, [L2Callback(STRENGTH, include="embed"), held], **plain)
    for step, others in ((1, set()), (2, {"model.embed_tokens.weight"})):  # at theta_o the penalty is 0
        pairs = {name: (weight, held.at[step][name]) for name, weight in free.at[step].items()}
        assert {name for name, (one, other) in pairs.items() if not one.equal(other)} == others


class Drift(TrainerCallback):
    """Stands for an optimizer that adds the same to every weight in every step."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(2.0**-10)


def drifted(folder: Path, callback: TrainerCallback, steps: int) -> Tensor:
    """Displacement of weights in float64 that drift by 2^-10 a step, under a callback, with a zero rate."""
    model = tiny_model().double()
    start = weights(model)["model.norm.weight"]
    train(folder, [Drift(), callback], model=model, max_steps=steps, learning_rate=0.0, weight_decay=0.0)
    return (weights(model)["model.norm.weight"] - start) * 2**10


@pytest.mark.parametrize(("beta", "p"), [(0.3, 0.5), (1.0, 0.5)])
def test_the_decoupled_pull_is_its_closed_form(tmp_path: Path, beta: float, p: float) -> None:
    """Under a drift of 1 a step the displacement is the geometric sum (1-b) + ... + (1-b)^T."""
    found = drifted(tmp_path, PullCallback(beta, p), steps=8)
    keeps = (1 - beta) ** (1 / (8 * p))
    expected = sum(keeps**power for power in range(1, 9))
    assert torch.allclose(found, torch.full_like(found, expected), rtol=1e-6)


def test_it_keeps_of_a_distance_what_sfa_keeps(tmp_path: Path) -> None:
    """Fact: K pulls are one average. Weights that stand still at distance 1 from theta_o end at the same."""
    start, ends = tmp_path / "start", []
    tiny_model().save_pretrained(start)
    for callback in (PullCallback(0.4, 0.5, anchor=start), SFACallback(0.4, 0.5, anchor=start)):
        model = tiny_model().double()
        with torch.no_grad():
            model.model.norm.weight += 1
        train(tmp_path, [callback], model=model, learning_rate=0.0, weight_decay=0.0)
        ends.append(weights(model)["model.norm.weight"] - 1)
    assert torch.allclose(ends[0], ends[1], rtol=1e-12)
    assert torch.allclose(ends[0], torch.full_like(ends[0], 0.6**2), rtol=1e-12)


def test_sfas_displacement_under_a_constant_drift(tmp_path: Path) -> None:
    """methods.md, fact 4: 0.375 at beta = 0.5 and p = 1/2; the pull of equal strength ends near it."""
    assert torch.allclose(drifted(tmp_path, SFACallback(0.5, 0.5), 8), torch.tensor(0.375 * 8).double())
    found = drifted(tmp_path, PullCallback(0.5, 0.5), 8)
    per_step = 1 - 0.5 ** (1 / 4)
    expected = (1 - per_step) * (1 - 0.5**2) / per_step
    assert torch.allclose(found, torch.full_like(found, expected), rtol=1e-6)


def test_the_pull_logs_no_record_a_step(tmp_path: Path) -> None:
    found = logged(train(tmp_path, [PullCallback()], logging_steps=3), "l2/")
    assert list(found) == [3, 6, 8]
    assert all(record["l2/beta_s"] == pytest.approx(1 - 0.5**0.5) for record in found.values())
    assert all(record["l2/drift"] > 0 for record in found.values())


@pytest.mark.parametrize(
    "form",
    ["loss", "decoupled", *(pytest.param(form, marks=pytest.mark.slow) for form in list(FORMS)[2:])],
)
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, form: str) -> None:
    whole = train(tmp_path, [FORMS[form]()], logging_steps=3, **CHECKPOINTS)
    checkpoint = str(tmp_path / "checkpoint-5")
    resumed = train(
        tmp_path,
        [FORMS[form]()],
        model=tiny_model(seed=1),
        resume_from_checkpoint=checkpoint,
        logging_steps=3,
        **CHECKPOINTS,
    )
    expected = weights(whole.model)
    assert all(expected[name].equal(weight) for name, weight in weights(resumed.model).items())
    assert logged(resumed, "l2/") == logged(whole, "l2/")


@pytest.mark.parametrize("lambda_", [-1, math.nan, math.inf, True, "1"])
def test_a_strength_that_is_none_is_refused(lambda_: Any) -> None:
    with pytest.raises(ConfigError, match=r"lambda: .* is not the strength of a penalty"):
        L2Callback(lambda_)
