"""An anchor read from a folder is the saved model's weights, or one clear error before training."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import Odd, tiny_model, train, weights
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertModel, GPTNeoXConfig, GPTNeoXForCausalLM

from sfa_hf import SFACallback
from sfa_hf.engines import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.shards.model_files import AnchorFiles


def trained_to(anchor: Path, folder: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """Train with beta = 1: the weights at the end are the anchor's."""
    train(folder, [SFACallback(1.0, 1.0, anchor=anchor)], model=model, max_steps=2)
    return weights(model)


@pytest.mark.parametrize("shard_size", ["1GB", "5KB"])
def test_a_saved_model_in_one_file_or_several(tmp_path: Path, shard_size: str) -> None:
    other = tiny_model(seed=5)
    other.save_pretrained(tmp_path / "anchor", max_shard_size=shard_size)
    assert (len(list((tmp_path / "anchor").glob("*.safetensors"))) > 1) == (shard_size == "5KB")
    merged = trained_to(tmp_path / "anchor", tmp_path, tiny_model())
    assert all(merged[name].equal(weight) for name, weight in weights(other).items())


def test_bfloat16_files_for_fp32_weights(tmp_path: Path) -> None:
    other = tiny_model(seed=5).bfloat16()
    other.save_pretrained(tmp_path / "anchor")
    merged = trained_to(tmp_path / "anchor", tmp_path, tiny_model())
    assert all(merged[name].equal(weight.float()) for name, weight in weights(other).items())


def test_tied_weights_are_found_under_either_name(tmp_path: Path) -> None:
    other = tiny_model(seed=5, tie_word_embeddings=True)
    other.save_pretrained(tmp_path / "anchor")
    file = tmp_path / "anchor" / "model.safetensors"
    merged = trained_to(tmp_path / "anchor", tmp_path, tiny_model(tie_word_embeddings=True))
    assert "lm_head.weight" not in merged
    assert merged["model.embed_tokens.weight"].equal(other.lm_head.weight)
    stored = load_file(file)
    save_file(
        {("lm_head.weight" if "embed" in name else name): value for name, value in stored.items()}, file
    )
    again = trained_to(tmp_path / "anchor", tmp_path, tiny_model(tie_word_embeddings=True))
    assert again["model.embed_tokens.weight"].equal(other.lm_head.weight)


def test_a_folder_of_the_base_model_alone_lacks_the_head(tmp_path: Path) -> None:
    tiny_model(seed=5).model.save_pretrained(tmp_path / "anchor")
    with pytest.raises(ConfigError, match=r"has no tensor lm_head\.weight"):
        trained_to(tmp_path / "anchor", tmp_path, tiny_model())
    callback = SFACallback(1.0, 1.0, anchor=tmp_path / "anchor", exclude="lm_head")
    model = tiny_model()
    train(tmp_path, [callback], model=model, max_steps=2)
    assert weights(model)["model.embed_tokens.weight"].equal(tiny_model(seed=5).model.embed_tokens.weight)


class Sentences(nn.Module):
    """A transformers model inside another, as sentence-transformers has it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.transformer = nn.Sequential(nn.Identity(), BertModel(BERT, add_pooling_layer=False))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.transformer[1](input_ids).last_hidden_state.square().mean()}


BERT = BertConfig(
    vocab_size=61, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
)


def test_a_model_inside_another_and_a_head_that_is_left_over(tmp_path: Path, caplog) -> None:
    logging.getLogger("sfa_hf").propagate = True
    other = BertForMaskedLM(BERT)
    other.save_pretrained(tmp_path / "anchor")
    merged = trained_to(tmp_path / "anchor", tmp_path, Sentences(seed=4))
    own = weights(other.bert)
    assert own
    assert all(merged[f"transformer.1.{name}"].equal(weight) for name, weight in own.items())
    assert any("are left over: cls.predictions" in record.message for record in caplog.records)


def test_names_that_transformers_changes_on_loading(tmp_path: Path) -> None:
    config = GPTNeoXConfig(
        vocab_size=61, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    other = GPTNeoXForCausalLM(config)
    other.save_pretrained(tmp_path / "anchor")
    assert "embed_out.weight" in load_file(tmp_path / "anchor" / "model.safetensors")
    merged = trained_to(tmp_path / "anchor", tmp_path, GPTNeoXForCausalLM(config))
    assert all(merged[name].equal(weight) for name, weight in weights(other).items())


def test_an_adapter_folder(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    other, model = (peft.get_peft_model(tiny_model(), config) for _ in range(2))
    other.save_pretrained(tmp_path / "anchor")
    merged = trained_to(tmp_path / "anchor", tmp_path, model)
    assert all(merged[name].equal(weight) for name, weight in weights(other).items())


@pytest.mark.parametrize("shape", [(7, 5, 3), (13,), (1, 4), ()])
def test_any_slice_of_a_tensor(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(shape))
    save_file({"weight": model.weight.detach()}, tmp_path / "model.safetensors")
    files, flat = AnchorFiles(str(tmp_path), model), model.weight.detach().reshape(-1)
    for start in range(flat.numel() + 1):
        for end in range(start, flat.numel() + 1):
            shard = Shard("weight", torch.empty(end - start), start, model.weight.shape)
            assert files.read(shard).equal(flat[start:end])


def changed(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    stored = {**load_file(folder / "model.safetensors"), **change}
    save_file(
        {name: value for name, value in stored.items() if value is not None}, folder / "model.safetensors"
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"lm_head.weight": None}, "has no tensor lm_head.weight"),
        ({"lm_head.weight": torch.ones(3, 4)}, r"lm_head.weight of shape \[3, 4\], the model \[61, 24\]"),
        ({"model.extra": torch.ones(2, 9)}, r"a tensor model.extra of shape \[2, 9\], which the model lacks"),
    ],
)
def test_a_tensor_that_does_not_fit(tmp_path: Path, change: dict, line: str) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "anchor")
    changed(tmp_path / "anchor", change)
    with pytest.raises(ConfigError, match=f"anchor: .*{line}"):
        train(tmp_path, [SFACallback(anchor=tmp_path / "anchor")], model=model)
    assert all(weights(model)[name].equal(weight) for name, weight in weights(tiny_model()).items())


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("config.json", "{}", "has no weights"),
        ("model.safetensors", "not this format", "model.safetensors cannot be read"),
        ("model.safetensors.index.json", "{", "is not valid JSON"),
        (
            "model.safetensors.index.json",
            json.dumps({"weight_map": {"a": "lost.safetensors"}}),
            "has no lost.safetensors",
        ),
    ],
)
def test_a_folder_that_is_no_saved_model(tmp_path: Path, name: str, content: str, line: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=line):
        AnchorFiles(str(tmp_path), Odd())
