"""Anchors of models with adapters: folders of adapters of any rank and scale, and whole models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from effective import Effective, EffectiveAfter, effective, error
from safetensors.torch import load_file, save_file
from tiny_training import tiny_model, train, weights
from torch import nn

from sfa_hf import L2Callback, PullCallback, SFACallback
from sfa_hf.errors import ConfigError

peft = pytest.importorskip("peft")

LINEAR = ["q_proj", "down_proj"]


def lora(r: int, seed: int = 0, kind: Any = peft.LoraConfig, **options: Any) -> Any:
    torch.manual_seed(seed)
    defaults = {"target_modules": LINEAR, "init_lora_weights": False} if kind is peft.LoraConfig else {}
    return peft.get_peft_model(tiny_model(), kind(r=r, **{**defaults, **options}))


def towards(
    folder: Path, model: nn.Module, anchor: Path, beta: float = 0.3, **options: Any
) -> tuple[dict, dict, Any]:
    before, after = Effective(), EffectiveAfter()
    callback = SFACallback(beta, 1.0, anchor=anchor, **options)
    trainer = train(folder, [before, callback, after], model=model, max_steps=2)
    return before.at[2], after.at[2], trainer


@pytest.mark.parametrize("kind", [{}, {"use_dora": True}])
@pytest.mark.parametrize("rank", [3, 8, 24])
def test_an_adapter_of_another_rank_and_scale(tmp_path: Path, rank: int, kind: dict) -> None:
    other = lora(rank, 1, lora_alpha=5, use_rslora=True, alpha_pattern={"q_proj": 2}, **kind)
    other.save_pretrained(tmp_path / "anchor")
    theta_o = effective(other)
    before, after, _ = towards(tmp_path, lora(24, lora_alpha=3, **kind), tmp_path / "anchor")
    assert error(before, theta_o, after, 0.3) < 1e-5


def test_a_larger_rank_is_cut_back_from_the_whole_average(tmp_path: Path) -> None:
    other, model = lora(9, 1), lora(2)
    base = effective(tiny_model_with_zero(model))
    other.save_pretrained(tmp_path / "anchor")
    theta_o = effective(other)
    before, after, _ = towards(tmp_path, model, tmp_path / "anchor", 0.6)
    for name, value in theta_o.items():
        update = 0.4 * before[name] + 0.6 * value - base[name]
        u, s, vh = torch.linalg.svd(torch.atleast_2d(update), full_matrices=False)
        best = (u[:, :2] * s[:2]) @ vh[:2]
        assert torch.allclose(torch.atleast_2d(after[name] - base[name]), best, atol=1e-6)


def tiny_model_with_zero(model: nn.Module) -> nn.Module:
    """The same model with an update of zero."""
    zero = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in zero.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    return zero


def test_the_tensors_of_other_parameters_are_averaged(tmp_path: Path) -> None:
    options = {"modules_to_save": ["lm_head"], "trainable_token_indices": [1, 5], "bias": "none"}
    other = lora(2, 1, **options)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter) if parameter.requires_grad else 0)
    other.save_pretrained(tmp_path / "anchor")
    theta_o = effective(other)
    before, after, _ = towards(tmp_path, lora(24, **options), tmp_path / "anchor")
    assert error(before, theta_o, after, 0.3) < 1e-5


KINDS = {
    "IA3": peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"], init_ia3_weights=False),
    "MiSS": peft.MissConfig(r=2, target_modules=["q_proj"], init_weights=False),
    "LN tuning": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "VeRA of zero": peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "prompts": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_other_kinds(tmp_path: Path, kind: str) -> None:
    other, model = (peft.get_peft_model(tiny_model(), copy.deepcopy(KINDS[kind])) for _ in range(2))
    other.save_pretrained(tmp_path / "anchor")
    train(tmp_path, [SFACallback(1.0, 1.0, anchor=tmp_path / "anchor")], model=model, max_steps=2)
    zeros = {name for name in weights(model) if "vera_lambda_d" in name}  # the other factor is scaled
    assert all(weights(model)[name].equal(w) for name, w in weights(other).items() if name not in zeros)


def test_a_model_with_an_adapter_and_no_wrapper(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=24, target_modules=LINEAR, init_lora_weights=False)
    other, model = tiny_model(), tiny_model()
    for each in (other, model):
        each.add_adapter(copy.deepcopy(config), adapter_name="mine")
    other.save_pretrained(tmp_path / "anchor")
    callback = SFACallback(1.0, 1.0, anchor=tmp_path / "anchor")
    train(tmp_path, [callback], model=model, max_steps=2)
    assert all(weights(model)[name].equal(w) for name, w in weights(other).items())


def test_of_several_adapters_the_trained_one_is_merged(tmp_path: Path) -> None:
    model = lora(2, 1)
    model.add_adapter("second", peft.LoraConfig(r=3, target_modules=LINEAR))
    model.set_adapter("second")
    first = {n: p.detach().clone() for n, p in model.named_parameters() if ".default." in n}
    trainer = train(tmp_path, [SFACallback(1.0, 1.0)], model=model, max_steps=2)
    assert all(p.equal(first[n]) for n, p in model.named_parameters() if n in first)
    assert not any(p.any() for n, p in model.named_parameters() if "lora_B.second" in n)
    assert trainer.state.log_history[-2]["sfa/lora_discarded"] == 0


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: peft.get_peft_model(tiny_model(), KINDS["IA3"]), "holds a IA3 adapter, the model LORA"),
        (lambda: lora(2, target_modules=["q_proj"]), "has no tensor .*down_proj.lora_"),
        (lambda: lora(2, use_dora=True), "has use_dora=True, the model None"),
        (lambda: lora(2, init_lora_weights="pissa"), "were changed by pissa of rank 2, None and nothing"),
    ],
)
def test_an_adapter_that_does_not_fit(tmp_path: Path, make: Any, line: str) -> None:
    make().save_pretrained(tmp_path / "anchor")
    with pytest.raises(ConfigError, match=f"anchor: .*{line}"):
        train(tmp_path, [SFACallback(anchor=tmp_path / "anchor")], model=lora(2))


def test_a_resume_notices_another_anchor_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    lora(3, 1).save_pretrained(tmp_path / "anchor")
    start = lora(2)
    run = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    ends = []
    for anchor in (None, tmp_path / "anchor"):
        folder = tmp_path / f"run-{anchor is None}"
        whole = copy.deepcopy(start)
        train(folder, [SFACallback(0.3, 0.25, anchor=anchor)], model=whole, **run)
        again = copy.deepcopy(start)
        checkpoint = folder / "checkpoint-4"
        train(
            folder,
            [SFACallback(0.3, 0.25, anchor=anchor)],
            model=again,
            **run,
            resume_from_checkpoint=checkpoint,
        )
        assert all(w.equal(weights(whole)[name]) for name, w in weights(again).items())
        ends.append(weights(whole))
    assert not all(w.equal(ends[1][name]) for name, w in ends[0].items())
    file = tmp_path / "anchor" / "adapter_model.safetensors"
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    with pytest.raises(ConfigError, match="is not the anchor that this training began with"):
        train(
            tmp_path / "run-False",
            [SFACallback(0.3, 0.25, anchor=tmp_path / "anchor")],
            model=copy.deepcopy(start),
            **run,
            resume_from_checkpoint=tmp_path / "run-False" / "checkpoint-4",
        )


def test_penalties_and_pulls(tmp_path: Path) -> None:
    lora(3, 1).save_pretrained(tmp_path / "anchor")
    with pytest.raises(
        ConfigError, match=r"anchor: the update of .* is not zero at the anchor, and would be cut"
    ):
        train(tmp_path, [PullCallback(anchor=tmp_path / "anchor")], model=lora(3))
    with pytest.raises(ConfigError, match=r"anchor: .*of shape \[3, 24\], the model \[2, 24\]"):
        train(tmp_path, [L2Callback(anchor=tmp_path / "anchor")], model=lora(2))
    model = lora(2, init_lora_weights=True)
    train(tmp_path, [PullCallback(1.0)], model=model, max_steps=2)
    assert not any(p.any() for n, p in model.named_parameters() if "lora_B" in n)
    assert all(p.any() for n, p in model.named_parameters() if "lora_A" in n)


def test_a_whole_model_is_the_anchor_where_it_is_the_base(tmp_path: Path) -> None:
    base = tiny_model(seed=3)
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=LINEAR, modules_to_save=["lm_head"])
    model = peft.get_peft_model(copy.deepcopy(base), copy.deepcopy(config))
    with torch.no_grad():
        model.base_model.model.model.layers[0].mlp.down_proj.lora_B["default"].weight.fill_(0.01)
    before, after, _ = towards(tmp_path, model, tmp_path / "base")
    theta_o = {n: p.detach().double() for n, p in base.named_parameters()}
    assert error(before, theta_o, after, 0.3) < 2e-6
    other = peft.get_peft_model(tiny_model(seed=4), config)
    with pytest.raises(ConfigError, match=r"anchor: .*is not that of the base: the update is no adapter"):
        train(tmp_path, [SFACallback(anchor=tmp_path / "base")], model=other)


def test_an_adapter_of_more_layers_than_the_model_trains(tmp_path: Path) -> None:
    lora(2, target_modules=[*LINEAR, "v_proj"]).save_pretrained(tmp_path / "anchor")
    with pytest.raises(ConfigError, match=r"anchor: .*has a tensor .*v_proj\.lora_.\.weight, which"):
        train(tmp_path, [SFACallback(anchor=tmp_path / "anchor")], model=lora(2))
