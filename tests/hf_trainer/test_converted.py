"""Models whose files hold other tensors than their memory are resumed, loaded and anchored exactly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Trainer,
    ViTConfig,
    ViTForImageClassification,
)

from sfa_hf import EMACallback, L2Callback, SFACallback
from sfa_hf.engines import Shard
from sfa_hf.shards.model_files import AnchorFiles
from tests.tiny_training import VOCABULARY, Watch, arguments, rows, train, weights

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
_MOE = {**_SIZES, "intermediate_size": 24, "num_key_value_heads": 2}


def mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**_MOE, num_local_experts=3, num_experts_per_tok=2))


def qwen2_moe() -> PreTrainedModel:
    options = {"moe_intermediate_size": 12, "shared_expert_intermediate_size": 20, "num_experts": 3}
    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**_MOE, **options, num_experts_per_tok=2, decoder_sparse_step=1)
    )


def gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZES, intermediate_size=24))


MODELS = [mixtral, qwen2_moe, gpt_neox]


def made(make: Any, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return make()


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[n], w) for n, w in expected.items())


EACH_4 = {"save_strategy": "steps", "save_steps": 4}


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("callback", [SFACallback, lambda: L2Callback(1.0), EMACallback])
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, make: Any, callback: Any) -> None:
    whole = train(tmp_path, [callback()], model=made(make), **EACH_4)
    watch = Watch()
    at_4 = str(tmp_path / "checkpoint-4")
    resumed = train(tmp_path, [callback(), watch], model=made(make, 1), **EACH_4, resume_from_checkpoint=at_4)
    assert equal(watch.at[4], weights(AutoModelForCausalLM.from_pretrained(at_4)))
    assert equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize("make", MODELS)
def test_it_is_the_named_checkpoint_that_is_read(tmp_path: Path, make: Any) -> None:
    train(tmp_path / "a", [SFACallback()], model=made(make), **EACH_4)
    train(tmp_path / "b", [SFACallback()], model=made(make, 1), **EACH_4)
    watch, named = Watch(), str(tmp_path / "a" / "checkpoint-4")
    train(tmp_path / "b", [SFACallback(), watch], model=made(make, 2), **EACH_4, resume_from_checkpoint=named)
    assert equal(watch.at[4], weights(AutoModelForCausalLM.from_pretrained(named)))


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("callback", [SFACallback, EMACallback])
def test_the_best_checkpoint_is_loaded_whole(tmp_path: Path, make: Any, callback: Any) -> None:
    evaluations = itertools.count()
    settings = arguments(
        tmp_path,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="late",
        greater_is_better=False,
    )
    trainer = Trainer(
        made(make),
        settings,
        train_dataset=rows(),
        eval_dataset=rows(8),
        callbacks=[callback()],
        compute_metrics=lambda _: {"late": next(evaluations)},
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best.endswith("-2")
    assert equal(weights(trainer.model), weights(AutoModelForCausalLM.from_pretrained(best)))


@pytest.mark.parametrize("make", MODELS)
def test_a_folder_is_the_anchor(tmp_path: Path, make: Any) -> None:
    anchor = made(make, 3)
    anchor.save_pretrained(tmp_path / "anchor")
    trainer = train(tmp_path, [SFACallback(1.0, 1.0, anchor=tmp_path / "anchor")], model=made(make))
    assert equal(weights(trainer.model), weights(anchor))


def test_an_image_models_folder_is_the_anchor(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}

    def vit(seed: int) -> ViTForImageClassification:
        torch.manual_seed(seed)
        return ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=2))

    vit(3).save_pretrained(tmp_path / "anchor")
    images = [{"pixel_values": torch.randn(3, 16, 16), "labels": torch.tensor(i % 2)} for i in range(8)]
    callback = SFACallback(1.0, 1.0, anchor=tmp_path / "anchor")
    settings = arguments(tmp_path / "run", max_steps=2)
    trainer = Trainer(vit(0), settings, train_dataset=images, callbacks=[callback])
    trainer.train()
    expected = AutoModelForImageClassification.from_pretrained(tmp_path / "anchor")
    assert equal(weights(trainer.model), weights(expected))


def test_the_same_shapes_are_read_without_a_model_in_memory(tmp_path: Path) -> None:
    model = made(mixtral)
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    files = AnchorFiles(str(tmp_path), empty)
    for name, weight in weights(model).items():
        part = weight.flatten()[3:17]
        assert torch.equal(files.read(Shard(name, part, 3, weight.shape)), part)


def test_a_checkpoint_that_cannot_be_read_whole_is_refused(tmp_path: Path) -> None:
    train(tmp_path, [SFACallback()], model=made(mixtral), **EACH_4)
    file = tmp_path / "checkpoint-4" / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in tensors if "experts.1.w1" in name)]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match="resume_from_checkpoint"):
        train(
            tmp_path, [SFACallback()], model=made(mixtral), **EACH_4, resume_from_checkpoint=str(file.parent)
        )
