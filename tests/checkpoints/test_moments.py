"""Second moments, from a training to a merge of saved models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from sfa_hf import SecondMomentsCallback
from sfa_hf.checkpoints import make_recipe, merge_checkpoints
from sfa_hf.checkpoints.moments import export_moments
from sfa_hf.errors import ConfigError
from tests.tiny_training import VOCABULARY, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings of a GPT-NeoX, whose output head has another name in files than in memory."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **sizes))
    for task in ("a", "b"):
        train(folder / task, [SecondMomentsCallback()], model=model)
        model.save_pretrained(folder / task / "model")
    return folder


def test_exported_moments_weigh_a_merge_of_saved_models(tmp_path: Path, trained: Path) -> None:
    for task in ("a", "b"):
        export_moments(trained / task / "_second_moments", trained / task / "model", tmp_path / task)
    models = [{"path": str(trained / task / "model"), "fisher": str(tmp_path / task)} for task in ("a", "b")]
    rule = {"name": "fisher", "weights": [0.75, 0.25], "power": 1.0, "epsilon": 1e-12}
    merge_checkpoints(make_recipe({"models": models, "rule": rule}), tmp_path / "merged")
    first, second, merged = (
        load_file(folder / "model.safetensors")
        for folder in (trained / "a" / "model", trained / "b" / "model", tmp_path / "merged")
    )
    f_a, f_b = (load_file(tmp_path / task / "model.safetensors") for task in ("a", "b"))
    assert f_a.keys() == first.keys()
    for name in ("embed_out.weight", "gpt_neox.embed_in.weight"):
        w_a, w_b = 0.75 * f_a[name].double(), 0.25 * f_b[name].double()
        seen = (w_a + w_b) > 1e-9
        exact = ((w_a * first[name] + w_b * second[name]) / (w_a + w_b))[seen]
        assert torch.allclose(merged[name].double()[seen], exact, rtol=1e-4, atol=1e-5)


def test_wrong_folders_are_named(tmp_path: Path, trained: Path) -> None:
    moments, model = trained / "a" / "_second_moments", trained / "a" / "model"
    with pytest.raises(ConfigError, match="holds no second moments"):
        export_moments(model, model, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"MODEL: .* has no config\.json"):
        export_moments(moments, moments, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"OUT_DIR: .* exists"):
        export_moments(moments, model, tmp_path)


@pytest.mark.slow
def test_the_command_writes_the_same(tmp_path: Path, trained: Path) -> None:
    folders = [trained / "a" / "_second_moments", trained / "a" / "model", tmp_path / "out"]
    command = [sys.executable, "scripts/export_moments.py", *map(str, folders)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    export_moments(folders[0], folders[1], tmp_path / "again")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        tmp_path / "again/model.safetensors"
    ).read_bytes()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 2
    assert again.stderr.startswith("error: OUT_DIR: ")
