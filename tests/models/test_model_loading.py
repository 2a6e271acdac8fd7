"""Models from folders and from the Hub: the one line that each bad one gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sfa_hf.errors import ConfigError
from sfa_hf.models import Recipe, load_model, resolve_model

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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_weights, "has no weights"),
        (_pickled, r"has no weights \(a pickled \.bin file is not read\)"),
        (_without_config, "has no config.json"),
        (_config_cut, "cannot be loaded"),
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
