"""EWC: its Fisher against one computed row by row in float64, its penalty against a training that has it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from sfa_hf import EWCCallback
from sfa_hf.errors import ConfigError
from sfa_hf.fisher.estimate import estimate_fisher
from sfa_hf.tasks import RightPad
from tests.fishers import (
    DECAY,
    LAMBDA,
    PenaltyOf,
    answered,
    fisher_in_float64,
    largest_error,
    made_up_past,
    whole_fisher,
)
from tests.penalised import CLIP, RATE, InOrder, reference
from tests.tiny_training import VOCABULARY, Odd, Watch, arguments, rows, tiny_model, train, weights

SGD = {"optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": CLIP}
CHECKPOINTS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
MODES = {"online": {"mode": "online", "decay": DECAY}, "separate": {"mode": "separate"}}


def estimated(folder: Path, model: Any, count: int = 9, **changes: Any) -> dict[str, torch.Tensor]:
    args = arguments(folder / "run", **changes)
    before = weights(model)
    estimate_fisher(model, args, answered(count), RightPad(0), folder=folder / "fisher", facts={"task": "a"})
    assert all(weight.equal(before[name]) for name, weight in weights(model).items())
    return whole_fisher(folder / "fisher", {name: weight.shape for name, weight in before.items()})


def noisy_neox() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    dropout = {"attention_dropout": 0.5, "hidden_dropout": 0.5}
    config = GPTNeoXConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **sizes, **dropout)
    return GPTNeoXForCausalLM(config)


@pytest.mark.parametrize("build", [tiny_model, noisy_neox])
def test_the_fisher_is_that_of_the_rows_one_by_one(tmp_path: Path, build: Any) -> None:
    """Whatever the training's batch, schedule, decay and dropout: it is measured on the model as it is."""
    training = {
        "gradient_accumulation_steps": 2,
        "weight_decay": 0.1,
        "warmup_steps": 3,
        "max_grad_norm": 0.1,
    }
    found = estimated(tmp_path, build(), **training)
    assert largest_error(found, fisher_in_float64(build(), answered())) < 1e-5


def test_a_parameter_that_no_row_reaches_is_named(tmp_path: Path, caplog: Any) -> None:
    model = tiny_model()
    model.register_parameter("idle", torch.nn.Parameter(torch.ones(3)))
    with caplog.at_level(logging.INFO):
        assert estimated(tmp_path, model)["idle"].tolist() == [0, 0, 0]
    assert "no row gave a gradient to idle (1 in all)" in caplog.text
    assert "Fisher of a: 9 of 9 rows" in caplog.text


def test_a_fisher_is_never_zero_or_nan_without_a_word(tmp_path: Path) -> None:
    flat = tiny_model()
    with torch.no_grad():
        flat.lm_head.weight.zero_()
        flat.model.norm.weight.zero_()
    lack = r"no row gave a gradient to model\.embed_tokens\.weight or any other"
    with pytest.raises(RuntimeError, match=lack):
        estimated(tmp_path, flat)
    broken = tiny_model()
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"gradient of .* is not finite"):
        estimated(tmp_path, broken)
    assert not (tmp_path / "fisher").exists()


def test_fp16_is_refused(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.fp16 = True
    with pytest.raises(ConfigError, match=r"training\.fp16"):
        estimate_fisher(tiny_model(), args, answered(), RightPad(0), folder=tmp_path / "fisher", facts={})


def odd() -> Odd:
    """Without the parameter that has no gradient, which the callback leaves alone and a loss would not."""
    model = Odd()
    model.unused.requires_grad_(False)
    return model


@pytest.mark.parametrize("mode", MODES)
def test_it_equals_the_papers_penalty_in_the_loss(tmp_path: Path, mode: str) -> None:
    past = made_up_past(tmp_path, odd())
    args = arguments(tmp_path, max_steps=6, **SGD)
    model = odd()
    InOrder(model, args, train_dataset=rows(), callbacks=[EWCCallback(past, LAMBDA, **MODES[mode])]).train()
    found = weights(model)
    for name, expected in reference(odd(), rows(), 6, 4, PenaltyOf(mode, odd())).items():
        assert torch.allclose(found[name].double(), expected, rtol=0, atol=2e-6), name


@pytest.mark.parametrize("mode", MODES)
def test_the_penalty_is_logged(tmp_path: Path, mode: str) -> None:
    past, watch = made_up_past(tmp_path, tiny_model()), Watch()
    callback = EWCCallback(past, LAMBDA, **MODES[mode])
    trainer = train(tmp_path, [callback, watch], logging_steps=5)
    found = {e["step"]: e["ewc/penalty"] for e in trainer.state.log_history if "ewc/penalty" in e}
    assert list(found) == [5, 8]
    penalty = PenaltyOf(mode, tiny_model())
    for step, value in found.items():
        now, start = ({n: w.double() for n, w in watch.at[at].items()} for at in (step, 0))
        assert value == pytest.approx(penalty(now, start).item(), rel=1e-6)
    shards = sum(weight.numel() for weight in watch.at[0].values())
    assert callback.nbytes == shards * 4 * (3 if mode == "separate" else 2)


@pytest.mark.parametrize(
    "place",
    ["disk", pytest.param("cpu", marks=pytest.mark.slow), pytest.param("device", marks=pytest.mark.slow)],
)
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, place: str) -> None:
    past = made_up_past(tmp_path / "past", tiny_model())

    def callback() -> EWCCallback:
        return EWCCallback(past, LAMBDA, mode="separate", anchor_device=place)

    whole = train(tmp_path, [callback()], **CHECKPOINTS)
    checkpoint = str(tmp_path / "checkpoint-5")
    resumed = train(
        tmp_path, [callback()], tiny_model(seed=1), resume_from_checkpoint=checkpoint, **CHECKPOINTS
    )
    expected = weights(whole.model)
    assert all(expected[name].equal(weight) for name, weight in weights(resumed.model).items())
    assert not list(tmp_path.glob("_sfa_anchor/ewc-*"))


def flipped(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "flipped": (flipped, "holds another Fisher than was written"),
    "cut": (
        lambda f: next(f.glob("*.safetensors")).write_bytes(b"12345678"),
        "fisher is damaged",
    ),
    "no file": (lambda f: next(f.glob("*.safetensors")).unlink(), "does not hold all of"),
    "no record": (lambda f: (f / "fisher.json").unlink(), r"fisher\.json: is missing"),
    "gone": (shutil.rmtree, r"fisher\.json: is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_fisher_is_refused(tmp_path: Path, damage: str) -> None:
    past = made_up_past(tmp_path, tiny_model())
    break_folder, line = DAMAGE[damage]
    break_folder(Path(past[1][0]))
    with pytest.raises(ConfigError, match=f"{line}.*remove the folder"):
        train(tmp_path, [EWCCallback(past)])


def test_a_fisher_of_another_model_is_refused(tmp_path: Path) -> None:
    past = made_up_past(tmp_path, tiny_model(hidden_size=32))
    with pytest.raises(ConfigError, match="fisher"):
        train(tmp_path, [EWCCallback(past)])
