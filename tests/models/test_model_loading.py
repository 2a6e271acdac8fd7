"""Models from folders and from the Hub: the one line that each bad one gets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
)

from sfa_hf.errors import ConfigError
from sfa_hf.files.weight_files import weight_files
from sfa_hf.models import Recipe, load_model, resolve_model
from sfa_hf.shards.model_files import AnchorFiles

SHARED = Path(__file__).parents[3] / "shared" / "models" / "tiny-pythia"
RECIPE = Recipe("pythia", hidden=32, vocabulary=400, documents=200, steps=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(resolve_model("builtin:pythia", tmp_path, RECIPE))


def test_a_folder_loads_and_a_missing_pad_token_becomes_the_eos(folder: Path) -> None:
    model, tokenizer = load_model(str(folder), "float32", attn_implementation="eager")
    assert tokenizer.pad_token == tokenizer.eos_token
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("builtin:pythai", r"no built-in model 'builtin:pythai' \(did you mean 'builtin:pythia'"),
        ("/nowhere/at/all", r"there is no folder /nowhere/at/all"),
        ("a/b/c", r"there is no folder a/b/c"),
        ("../gone", r"there is no folder \.\./gone"),
    ],
)
def test_a_name_that_is_nothing_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_model(name)
    assert str(caught.value).startswith("model.name_or_path: ")
    assert "\n" not in str(caught.value)


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _config_cut(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nosuch"}')


def _weights_cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def _head_renamed(folder: Path) -> None:
    _tensors(folder, lambda tensors: tensors.update(head=tensors.pop("embed_out.weight")))


def _tensor_too_many(folder: Path) -> None:
    _tensors(folder, lambda tensors: tensors.update(head=torch.zeros(2)))


def _with_nan(folder: Path) -> None:
    _tensors(folder, lambda tensors: tensors["embed_out.weight"].view(-1)[7:8].fill_(float("nan")))


def _with_infinity(folder: Path) -> None:
    _tensors(folder, lambda tensors: tensors["embed_out.weight"].view(-1)[7:8].fill_(float("-inf")))


def _changed(folder: Path, **change: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))


def _more_layers(folder: Path) -> None:
    _changed(folder, num_hidden_layers=12)


def _fewer_layers(folder: Path) -> None:
    _changed(folder, num_hidden_layers=1)


def _other_width(folder: Path) -> None:
    _changed(folder, intermediate_size=8)


def _named_elsewhere(folder: Path) -> None:
    _changed(folder, transformers_weights="other.safetensors")


def _encoder(folder: Path) -> None:
    config = BertConfig(vocab_size=400, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    BertForMaskedLM(config).save_pretrained(folder)


def _encoder_with_decoder(folder: Path) -> None:
    BartForConditionalGeneration(
        BartConfig(vocab_size=400, d_model=16, encoder_layers=1, decoder_layers=1)
    ).save_pretrained(folder)


def _encoder_alone(folder: Path) -> None:
    shape = {"vocab_size": 400, "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    DistilBertForMaskedLM(DistilBertConfig(**shape)).save_pretrained(folder)


def _index(folder: Path, names: dict[str, str]) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _index_above(folder: Path) -> None:
    _index(folder, {"x": "../outside.safetensors"})


def _index_absolute(folder: Path) -> None:
    _index(folder, {"x": str(folder / "a.safetensors")})


def _index_linked_out(folder: Path) -> None:
    _index(folder, {"x": "b.safetensors"})
    (folder / "a.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "b.safetensors").symlink_to(folder.parent / "outside.safetensors")


def _index_of_numbers(folder: Path) -> None:
    _index(folder, {"x": 3})  # type: ignore[dict-item]


def _config_nested(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def _config_endless(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")


def _config_pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_head_renamed, r"lacks weights: lm_head\.weight \("),
        (_tensor_too_many, "leaves no place for: head"),
        (_more_layers, r"lacks weights: gpt_neox\.layers\.10\..* and \d+ more"),
        (_fewer_layers, r"leaves no place for: gpt_neox\.layers\.1\."),
        (_other_width, r"of shape .*, its config says .* and \d+ more"),
        (_with_nan, r"NaN or infinite values in lm_head\.weight"),
        (_with_infinity, r"NaN or infinite values in lm_head\.weight"),
        (_named_elsewhere, "names its own transformers_weights"),
        (_encoder, "is a bert encoder"),
        (_encoder_alone, "is a distilbert, of which transformers has no causal language model"),
        (_encoder_with_decoder, "is a bart, an encoder with a decoder"),
        (_index_above, r"names '\.\./outside\.safetensors'"),
        (_index_absolute, "names '/"),
        (_index_linked_out, "is a link out of its folder"),
        (_index_of_numbers, "has no weight_map"),
        (_config_nested, "nested too deep"),
        (_config_endless, "is not a regular file"),
        (_config_pipe, "has no config.json|is not a regular file"),
        (_without_weights, "has no weights"),
        (_pickled, r"has no weights \(a pickled \.bin file is not read\)"),
        (_without_config, "has no config.json"),
        (_config_cut, "is not valid JSON"),
        (_unknown_type, "cannot be loaded"),
        (_weights_cut, "cannot be loaded"),
        (_without_tokenizer, "has no tokenizer"),
    ],
)
def test_a_bad_folder_is_one_line(damage: object, message: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=message) as caught:
        load_model(str(copy), "float32")
    assert "\n" not in str(caught.value)


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"model EleutherAI/pythia-2\.8b needs the Hugging Face Hub"
    ) as caught:
        load_model("EleutherAI/pythia-2.8b", "bfloat16")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/models/tiny-pythia is not here")
def test_a_trained_model_from_elsewhere_loads() -> None:
    model, tokenizer = load_model(str(SHARED), "bfloat16")
    assert model.num_parameters() > 3_000_000
    assert tokenizer.pad_token is not None


_THEIRS = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
Path("{marker}").touch()
from transformers import GPTNeoXConfig as Config, GPTNeoXForCausalLM as Model
"""


@pytest.mark.parametrize("kind", ["model", pytest.param("tokenizer", marks=pytest.mark.slow)])
def test_code_of_a_folder_is_not_run_whatever_the_input_says(kind: str, folder: Path, tmp_path: Path) -> None:
    copy, marker = tmp_path / "copy", tmp_path / "ran"
    shutil.copytree(folder, copy)
    (copy / "theirs.py").write_text(_THEIRS.format(marker=marker))
    if kind == "model":
        auto = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
        _changed(copy, model_type="theirs", auto_map=auto)
    else:
        (copy / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Model", None]}})
        )
    command = [sys.executable, "-m", "sfa_hf", "evaluate", str(copy), "task=demo/math", "evaluation.limit=1"]
    ended = subprocess.run(
        command, input="y\n" * 9, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "code of its own" in ended.stderr
    assert not marker.exists()


def test_a_known_architecture_loads_without_the_code_beside_it(folder: Path, tmp_path: Path) -> None:
    copy, marker = tmp_path / "copy", tmp_path / "ran"
    shutil.copytree(folder, copy)
    (copy / "theirs.py").write_text(_THEIRS.format(marker=marker))
    _changed(copy, auto_map={"AutoModelForCausalLM": "theirs.Model"})
    load_model(str(copy), "float32")
    assert not marker.exists()


def test_one_file_counts_before_the_index_of_shards_as_in_transformers(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    other = dict.fromkeys(load_file(copy / "model.safetensors"), torch.zeros(1))
    save_file({name: value.clone() for name, value in other.items()}, copy / "old.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(other, "old.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files(copy, "model") == [copy / "model.safetensors"]
    model, _ = load_model(str(copy), "float32")
    assert AnchorFiles(str(copy), model).stored_name("lm_head.weight") == "embed_out.weight"
