"""Weights, arguments and parameters that a training cannot go well with are refused in time."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback

from sfa_hf import EMACallback, L2Callback, SFACallback
from sfa_hf.errors import ConfigError
from tests.tiny_training import arguments, tiny_model, train, weights


@pytest.mark.parametrize("callback", [SFACallback, L2Callback, EMACallback])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_before_a_step(
    tmp_path: Path, callback: type, value: float
) -> None:
    model = tiny_model()
    model.model.layers[0].mlp.up_proj.weight.data[3, 5] = value
    with pytest.raises(
        ConfigError, match=r"model: 1 values are NaN or infinite \(model.layers.0.mlp.up_proj"
    ):
        train(tmp_path, [callback()], model=model)


def test_an_anchor_that_is_not_finite_is_refused_before_a_step(tmp_path: Path) -> None:
    anchor = tiny_model()
    anchor.lm_head.weight.data[0, 0] = float("nan")
    anchor.save_pretrained(tmp_path / "anchor")
    model = tiny_model()
    start = weights(model)
    with pytest.raises(ConfigError, match=r"anchor: 1 values are NaN or infinite \(lm_head.weight\)"):
        train(tmp_path / "run", [SFACallback(anchor=tmp_path / "anchor")], model=model)
    assert all(torch.equal(weights(model)[name], weight) for name, weight in start.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", float("inf")), ("weight_decay", float("nan")), ("max_grad_norm", float("nan"))],
)
def test_an_argument_that_is_not_finite_is_refused_before_a_step(
    tmp_path: Path, name: str, value: float
) -> None:
    with pytest.raises(ConfigError, match=f"{name}: is (inf|nan)"):
        train(tmp_path, [SFACallback()], **{name: value})


class Unfreeze(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == 3:
            model.lm_head.weight.requires_grad_(True)


@pytest.mark.parametrize("callback", [SFACallback, L2Callback, EMACallback])
def test_a_layer_that_is_unfrozen_on_the_way_is_refused_at_that_step(tmp_path: Path, callback: type) -> None:
    model = tiny_model()
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(NotImplementedError, match=r"lm_head.weight changed before step 4"):
        train(tmp_path, [callback(), Unfreeze()], model=model)


def test_an_embedding_that_is_resized_on_the_way_is_refused_at_that_step(tmp_path: Path) -> None:
    class Resize(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
            if state.global_step == 2:
                model.resize_token_embeddings(80)

    with pytest.raises(NotImplementedError, match=r"embed_tokens.weight.*changed before step 3"):
        train(tmp_path, [SFACallback(), Resize()])


def test_running_statistics_are_said_to_be_left_alone(tmp_path: Path, caplog) -> None:
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "num_labels": 2}
    torch.manual_seed(0)
    model = ResNetForImageClassification(ResNetConfig(**sizes))
    images = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.tensor(i % 2)} for i in range(8)]
    settings = arguments(tmp_path, max_steps=2)
    with caplog.at_level(logging.WARNING):
        Trainer(model, settings, train_dataset=images, callbacks=[SFACallback(1.0, 1.0)]).train()
    assert "buffers (" in caplog.text
    assert "running_mean" in caplog.text
