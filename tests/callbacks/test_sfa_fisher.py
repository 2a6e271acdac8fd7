"""SFACallback(rule="fisher"): each entry weighted by the second moments of this task and of those before."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Adafactor, LlamaForCausalLM, Trainer, TrainerCallback

from sfa_hf import SecondMomentsCallback, SFACallback
from sfa_hf.engines import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.moments.folder import MomentFolder
from tests.fisher_reference import EPSILON, expected, ulps
from tests.tiny_training import BeforeAndAfter, Odd, Watch, arguments, rows, tiny_model, train, weights

BETA2 = 0.95
ADAM = {"adam_beta2": BETA2}
HALF_AN_ULP = 0.5 + 1e-6


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    first_task(folder, tiny_model())
    return folder


def model_of(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder / "model")


def test_a_first_task_leaves_its_bias_corrected_second_moments(tmp_path: Path) -> None:
    model = tiny_model()
    f_1 = first_task(tmp_path, model)
    stored = saved_moments(tmp_path / "_second_moments", model)
    assert all(stored[name].equal(f.float()) for name, f in f_1.items())


@pytest.mark.parametrize(("beta", "power", "device"), [(0.3, 0.5, "cpu"), (0.7, 1.0, "disk")])
def test_each_merge_is_the_weighted_one_in_float64_and_the_moments_are_handed_on(
    tmp_path: Path, trained: Path, beta: float, power: float, device: str
) -> None:
    model = model_of(trained)
    stored = saved_moments(trained / "_second_moments", model)
    callback = SFACallback(
        beta, 0.5, rule="fisher", power=power, anchor=trained / "model", anchor_device=device
    )
    trainer, before, after, moments = second_task(tmp_path / "b", model, callback)
    for step in (4, 8):
        for name, theta_o in before.at[0].items():
            theta, f = before.at[step][name], moments.at[step][name]
            exact = expected(theta, theta_o, f, stored[name], beta=beta, power=power)
            assert ulps(exact, after.at[step][name], theta, theta_o) <= HALF_AN_ULP
    assert [e["step"] for e in trainer.state.log_history if "sfa/merge" in e] == [4, 8]
    assert callback.nbytes == 2 * 4 * sum(f_bar.numel() for f_bar in stored.values())
    for name, f_bar in saved_moments(tmp_path / "b" / "_second_moments", model).items():
        exact = beta * stored[name].double() + (1 - beta) * moments.at[8][name]
        assert torch.allclose(f_bar.double(), exact, rtol=1e-6, atol=0)
    facts = MomentFolder(tmp_path / "b" / "_second_moments").facts
    assert (facts.tasks, facts.steps, facts.beta2, facts.alpha) == (2, 8, BETA2, 1 - beta)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["_second_moments"]


def test_constant_moments_are_the_mean_of_f_and_nothing_is_handed_on(tmp_path: Path) -> None:
    model = tiny_model()
    callback = SFACallback(0.4, 0.5, rule="fisher", anchor_moments="constant")
    _, before, after, moments = second_task(tmp_path, model, callback)
    for name, theta_o in before.at[0].items():
        theta, f = before.at[8][name], moments.at[8][name]
        exact = expected(theta, theta_o, f, None, beta=0.4, power=0.5)
        assert ulps(exact, after.at[8][name], theta, theta_o) <= HALF_AN_ULP
    kept = saved_moments(tmp_path / "_second_moments", model)
    assert all(f_bar.equal(moments.at[8][name].float()) for name, f_bar in kept.items())
    assert MomentFolder(tmp_path / "_second_moments").facts.tasks == 1


def test_power_0_is_the_plain_average_to_the_bit(tmp_path: Path) -> None:
    first, second = (
        train(tmp_path / str(i), [SFACallback(0.3, **options)], **ADAM).model
        for i, options in enumerate([{}, {"rule": "fisher", "power": 0, "anchor_moments": "constant"}])
    )
    assert all(weights(first)[name].equal(weight) for name, weight in weights(second).items())


def test_a_shuffled_control_permutes_each_parameter_the_same_way_every_time(
    tmp_path: Path, trained: Path
) -> None:
    model, kept = model_of(trained), MomentFolder(trained / "_second_moments")
    for name, parameter in model.named_parameters():
        whole = Shard(name, parameter.data.view(-1), 0, parameter.shape)
        parts = [
            Shard(name, part, offset, parameter.shape)
            for offset, part in ((i, whole.data[i : i + 100]) for i in range(0, whole.data.numel(), 100))
        ]
        shuffled = kept.read_shuffled(whole, seed=1)
        assert torch.cat([kept.read_shuffled(part, seed=1) for part in parts]).equal(shuffled)
        assert shuffled.sort().values.equal(kept.read(whole).sort().values)
        if whole.data.unique().numel() > 1:
            assert not shuffled.equal(kept.read(whole))
            assert not shuffled.equal(kept.read_shuffled(whole, seed=2))
    callback = SFACallback(rule="fisher", anchor=trained / "model", shuffle_moments=1)
    *_, moments = second_task(tmp_path / "b", model, callback)
    for name, f_bar in saved_moments(tmp_path / "b" / "_second_moments", model).items():
        before = kept.read(Shard(name, f_bar.view(-1), 0, f_bar.shape)).view(f_bar.shape)
        assert torch.allclose(f_bar.double(), 0.5 * before + 0.5 * moments.at[8][name], rtol=1e-6, atol=0), (
            name
        )


def test_frozen_tied_empty_and_untouched_parameters(tmp_path: Path) -> None:
    model = Odd()
    first_task(tmp_path / "a", model)
    stored = saved_moments(tmp_path / "a" / "_second_moments", model)
    callback = SFACallback(0.3, 1.0, rule="fisher", anchor_moments=tmp_path / "a" / "_second_moments")
    trainer, before, after, moments = second_task(tmp_path / "b", model, callback)
    for name, theta_o in before.at[0].items():
        theta, f = before.at[8][name], moments.at[8][name]
        exact = expected(theta, theta_o, f, stored[name], beta=0.3, power=0.5)
        assert ulps(exact, after.at[8][name], theta, theta_o) <= 1, name
    assert after.at[8]["unused"].equal(before.at[0]["unused"])
    logged = next(entry for entry in trainer.state.log_history if "sfa/merge" in entry)
    assert {key for key in logged if "anchor_weight" in key} == {
        f"sfa/anchor_weight/{kind}" for kind in ("all", "embeddings", "other")
    }


def test_the_mean_weights_are_logged_by_kind_of_parameter(tmp_path: Path) -> None:
    model = tiny_model()
    callback = SFACallback(0.4, 1.0, rule="fisher", anchor_moments="constant")
    trainer, *_, moments = second_task(tmp_path, model, callback)
    shares = {}
    for name, f in moments.at[8].items():
        scaled = f / f.mean() + EPSILON
        shares[name] = 1 / (1 + 0.6 / 0.4 * (scaled / (1 + EPSILON)).sqrt())
    kinds = {
        "all": "",
        "norms": "norm",
        "embeddings": "embed_tokens|lm_head",
        "attention": "self_attn",
        "mlp": "mlp",
    }
    logged = next(entry for entry in trainer.state.log_history if "sfa/merge" in entry)
    for kind, pattern in kinds.items():
        values = torch.cat([share.flatten() for name, share in shares.items() if re.search(pattern, name)])
        assert logged[f"sfa/anchor_weight/{kind}"] == pytest.approx(values.mean().item(), rel=1e-9), kind


def two_decays(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    groups = [
        {"params": parameters[:1], "betas": (0.9, 0.9)},
        {"params": parameters[1:], "betas": (0.9, BETA2)},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def adafactor(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return Adafactor(parameters, lr=lr, relative_step=False)


class Adam8bit(torch.optim.Optimizer):
    """bitsandbytes' needs a GPU: this one has its name and its betas."""

    __module__ = "bitsandbytes.optim.adam"

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999)})


CHECKPOINTS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}


def resumed(folder: Path, start: Path, step: int = 5, **options: Any) -> Trainer:
    callback = SFACallback(rule="fisher", **{"anchor": start / "model", **options})
    checkpoint = str(folder / f"checkpoint-{step}")
    return train(
        folder, [callback], model=tiny_model(seed=1), resume_from_checkpoint=checkpoint, **ADAM, **CHECKPOINTS
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("options", [{}, {"anchor_device": "disk", "shuffle_moments": 3}], ids=str)
def test_a_resumed_training_ends_in_the_same_weights_and_moments(
    tmp_path: Path, trained: Path, options: dict[str, Any]
) -> None:
    callback = SFACallback(rule="fisher", anchor=trained / "model", **options)
    whole, *_ = second_task(tmp_path, model_of(trained), callback, **CHECKPOINTS)
    left = files(tmp_path / "_second_moments")
    again = resumed(tmp_path, trained, **options)
    expected_weights = weights(whole.model)
    assert all(expected_weights[name].equal(weight) for name, weight in weights(again.model).items())
    assert files(tmp_path / "_second_moments") == left


def test_resuming_with_other_moments_is_refused(tmp_path: Path, trained: Path) -> None:
    first_task(tmp_path / "other", tiny_model(seed=4))
    callback = SFACallback(rule="fisher", anchor=trained / "model")
    second_task(tmp_path / "b", model_of(trained), callback, **CHECKPOINTS)
    others = {
        "constant are": {"anchor_moments": "constant"},
        "other/_second_moments, fingerprint .* are": {
            "anchor_moments": tmp_path / "other" / "_second_moments"
        },
        "shuffled with seed 3, .* are": {"shuffle_moments": 3},
    }
    for line, options in others.items():
        began = f"{line} not the second moments that this training began with: {trained}"
        with pytest.raises(ConfigError, match=f"anchor_moments: .*{began}"):
            resumed(tmp_path / "b", trained, **options)


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


ONE = "00000-of-00001.safetensors"
DAMAGE = {
    "a bit": (edit(ONE, lambda data: data[:-1] + bytes([data[-1] ^ 1])), "has changed: fingerprint"),
    "cut short": (edit(ONE, lambda data: data[:-100]), "is damaged"),
    "no file": (lambda folder: (folder / ONE).unlink(), "has no model"),
    "no facts": (lambda folder: (folder / "facts.json").unlink(), "holds no second moments"),
    "other facts": (
        edit("facts.json", lambda data: data.replace(b'"tasks": 1', b'"tasks": 2')),
        "holds no second",
    ),
    "no folder": (shutil.rmtree, "there is no _second_moments in or beside"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_moments_are_refused(tmp_path: Path, trained: Path, damage: str) -> None:
    shutil.copytree(trained, tmp_path / "a")
    break_it, line = DAMAGE[damage]
    break_it(tmp_path / "a" / "_second_moments")
    with pytest.raises(ConfigError, match=f"anchor_moments: .*{line}"):
        train(tmp_path / "b", [SFACallback(rule="fisher", anchor=tmp_path / "a" / "model")], **ADAM)
    assert not list((tmp_path / "b").rglob("*.safetensors"))


def test_moments_of_another_model_are_refused_by_both_shapes(tmp_path: Path, trained: Path) -> None:
    callback = SFACallback(rule="fisher", anchor_moments=trained / "_second_moments")
    with pytest.raises(
        ConfigError, match=r"has model\.embed_tokens\.weight of shape \[61, 24\], the model \[61, 28\]"
    ):
        train(tmp_path, [callback], model=tiny_model(hidden_size=28), **ADAM)


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (torch.optim.SGD, "torch.optim.sgd.SGD"),
        (adafactor, "Adafactor"),
        (torch.optim.Adamax, "Adamax"),
        (Adam8bit, "bitsandbytes.optim.adam.Adam8bit"),
        (two_decays, r"several beta2 \(\[0.9, 0.95\]\)"),
    ],
)
def test_an_optimizer_without_second_moments_is_refused_before_a_step(
    tmp_path: Path, optimizer: Any, named: str
) -> None:
    first_task = optimizer is torch.optim.SGD
    callback = (
        SecondMomentsCallback() if first_task else SFACallback(rule="fisher", anchor_moments="constant")
    )
    model = tiny_model()
    start = weights(model)
    trainer = Trainer(
        model,
        arguments(tmp_path),
        train_dataset=rows(),
        callbacks=[callback],
        optimizers=(optimizer(list(model.parameters()), lr=0.1), None),
    )
    with pytest.raises(
        NotImplementedError, match=f"second moments cannot be read from .*{named}.*; supported: AdamW"
    ):
        trainer.train()
    assert all(weights(model)[name].equal(weight) for name, weight in start.items())


@pytest.mark.parametrize("fused", [False, True])
def test_the_optimizers_own_count_corrects_the_bias(tmp_path: Path, fused: bool) -> None:
    """A parameter that gets its first gradient late has seen fewer steps than the training took."""
    model = Odd()

    class Late(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
            if state.global_step >= 5:
                model.unused.grad = torch.full_like(model.unused, 2.0)

    moments = Moments()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], betas=(0.9, BETA2), fused=fused
    )
    callbacks = [Late(), moments, SecondMomentsCallback()]
    args = arguments(tmp_path, max_grad_norm=0.0)
    Trainer(model, args, train_dataset=rows(), callbacks=callbacks, optimizers=(optimizer, None)).train()
    kept = saved_moments(tmp_path / "_second_moments", model)
    assert torch.allclose(kept["unused"], torch.full_like(kept["unused"], 4.0))
    assert all(kept[name].equal(f.float()) for name, f in moments.at[8].items())


def test_the_moments_of_a_training_that_stopped_early_are_those_of_its_last_step(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            control.should_training_stop = state.global_step >= 3

    model, moments = tiny_model(), Moments()
    train(tmp_path, [moments, SecondMomentsCallback(), Stop()], model=model, **ADAM)
    kept = saved_moments(tmp_path / "_second_moments", model)
    assert all(kept[name].equal(f.float()) for name, f in moments.at[3].items())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"power": 3}, "power: 3 is not a power of F"),
        ({"power": "1"}, "power: '1' is not a power of F"),
        ({"optimizer_state": "reset"}, "optimizer_state: 'reset' beside rule='fisher'"),
        ({"optimizer_state": "scale"}, "optimizer_state: 'scale' beside rule='fisher'"),
        ({"shuffle_moments": 1.5}, "shuffle_moments: 1.5 is not a seed"),
        ({"shuffle_moments": 1, "anchor_moments": "constant"}, "shuffle_moments: nothing to shuffle"),
        ({"rule": "average", "power": 1.0}, "power: 1.0 beside rule='average'"),
        ({"rule": "average", "anchor_moments": "x"}, "anchor_moments: 'x' beside rule='average'"),
    ],
)
def test_a_wrong_argument_is_named_at_construction(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        SFACallback(**{"rule": "fisher", **options})


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "anchor_moments: None, and anchor=None is no folder to look beside .*SecondMomentsCallback"),
        ({"anchor_moments": "/no/such"}, "anchor_moments: there is no folder /no/such"),
    ],
)
def test_missing_moments_are_named_when_training_begins(
    tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        train(tmp_path, [SFACallback(rule="fisher", **options)], **ADAM)


@pytest.mark.parametrize("second", [SFACallback(rule="fisher", include="mlp"), SecondMomentsCallback()])
def test_a_second_saver_of_moments_is_refused_before_anything_is_written(
    tmp_path: Path, trained: Path, second: TrainerCallback
) -> None:
    first = SFACallback(rule="fisher", anchor=trained / "model", exclude="mlp")
    with pytest.raises(ConfigError, match="second_moments: of this training would be saved twice"):
        train(tmp_path, [first, second], **ADAM)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "callback", [SecondMomentsCallback(), SFACallback(rule="fisher", anchor_moments="constant")]
)
def test_moments_of_16_bit_weights_are_refused_before_a_step(
    tmp_path: Path, callback: TrainerCallback, dtype: torch.dtype
) -> None:
    """torch keeps them in the weights' dtype: 0.999 v is rounded back to v, and F never falls."""
    model = tiny_model().to(dtype)
    with pytest.raises(NotImplementedError, match=rf"weights in {dtype} .*loaded in float32"):
        train(tmp_path, [callback], model=model, **ADAM)
    assert all(value.equal(weights(tiny_model().to(dtype))[name]) for name, value in weights(model).items())


def test_moments_that_this_training_would_replace_are_refused(tmp_path: Path) -> None:
    first_task(tmp_path, tiny_model())
    callback = SFACallback(rule="fisher", anchor=tmp_path / "model")
    with pytest.raises(ConfigError, match=r"anchor_moments: .* is where this training will save its own"):
        train(tmp_path, [callback], model=model_of(tmp_path), **ADAM)
    assert MomentFolder(tmp_path / "_second_moments").facts.tasks == 1


def test_moments_lie_beside_an_anchor_that_is_the_current_folder(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained / "model")
    callback = SFACallback(rule="fisher", anchor=".")
    train(tmp_path, [callback], model=model_of(trained), **ADAM)
    assert MomentFolder(tmp_path / "_second_moments").facts.tasks == 2


def test_a_diverged_training_is_told_instead_of_merged(tmp_path: Path) -> None:
    class Diverge(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, model=None, **kwargs) -> None:
            optimizer.state[model.lm_head.weight]["exp_avg_sq"].fill_(float("inf"))

    callbacks = [Diverge(), SFACallback(rule="fisher", anchor_moments="constant")]
    with pytest.raises(FloatingPointError, match=r"second moment of lm_head\.weight is not finite"):
        train(tmp_path, callbacks, **ADAM)
