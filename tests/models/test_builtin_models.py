"""The built-in models: what they are, that they are reproducible, and the cache that keeps them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXForCausalLM, LlamaForCausalLM, Qwen2ForCausalLM

from sfa_hf.config.paths import cache_folder
from sfa_hf.models import BUILTINS, Recipe, load_model, resolve_model

FAMILIES = {"pythia": GPTNeoXForCausalLM, "llama": LlamaForCausalLM, "qwen": Qwen2ForCausalLM}
TEXT = "Ada has 12 pears.\nfor row in rows: print(row + 3) — naïve\t日本 <s>"


def small(family: str, **changes: object) -> Recipe:
    shape = {"hidden": 32, "heads": 4, "vocabulary": 400, "documents": 200, "steps": 3}
    return Recipe(family, **{**shape, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def weights(folder: str) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_loads_generates_and_spells(family: str, cache: Path) -> None:
    model, tokenizer = load_model(resolve_model(f"builtin:{family}", cache, small(family)), "bfloat16")
    assert isinstance(model, FAMILIES[family])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    ids = tokenizer("On Monday", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=5, do_sample=False).shape[1] > ids["input_ids"].shape[1]
    assert tokenizer.decode(tokenizer(TEXT, add_special_tokens=False)["input_ids"]) == TEXT
    assert len(tokenizer) <= model.get_input_embeddings().num_embeddings


@pytest.mark.parametrize("family", FAMILIES)
def test_a_digit_is_a_token_and_padding_is_possible(family: str, cache: Path) -> None:
    _, tokenizer = load_model(resolve_model(f"builtin:{family}", cache, small(family)), "float32")
    tokens = tokenizer.tokenize("2024+17")
    assert [token for token in tokens if token.isdigit()] == list("202417")
    assert tokenizer(["a", "a longer text"], padding=True, return_tensors="pt")["input_ids"].shape[0] == 2
    adds_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    assert adds_bos == (family == "llama")
    assert (tokenizer.chat_template is not None) == (family == "qwen")


@pytest.mark.parametrize("recipe", BUILTINS.values(), ids=BUILTINS)
def test_the_shipped_recipes_have_a_few_hundred_thousand_parameters(recipe: Recipe, cache: Path) -> None:
    untrained = Recipe(recipe.family, documents=600, steps=0)
    model, _ = load_model(resolve_model(f"builtin:{recipe.family}", cache, untrained), "float32")
    assert 300_000 < model.num_parameters() < 1_000_000


def test_building_is_reproducible_and_leaves_the_process_as_it_was(cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = resolve_model("builtin:pythia", cache, small("pythia"))
    again = resolve_model("builtin:pythia", tmp_path, small("pythia"))
    assert weights(first) == weights(again)
    assert (Path(first) / "tokenizer.json").read_bytes() == (Path(again) / "tokenizer.json").read_bytes()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_recipe_is_part_of_the_name(cache: Path) -> None:
    first = resolve_model("builtin:pythia", cache, small("pythia"))
    other = resolve_model("builtin:pythia", cache, small("pythia", seed=1))
    assert first != other
    assert weights(first) != weights(other)


def test_training_teaches_the_base_something(tmp_path: Path) -> None:
    def loss(steps: int) -> float:
        recipe = small("llama", steps=steps, documents=400)
        model, tokenizer = load_model(resolve_model("builtin:llama", tmp_path, recipe), "float32")
        ids = tokenizer("On Monday Ada sold 3 pens in town. 3 plus 4 is 7.", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    assert loss(60) < loss(0) - 1.0


@pytest.mark.parametrize("damage", ["cut", "gone", "no manifest", "changed"])
def test_a_damaged_copy_is_built_again(damage: str, tmp_path: Path) -> None:
    folder = Path(resolve_model("builtin:pythia", tmp_path, small("pythia", steps=1)))
    whole = weights(str(folder))
    file = folder / "model.safetensors"
    if damage == "cut":
        file.write_bytes(whole[:100])
    elif damage == "changed":
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "gone":
        file.unlink()
    else:
        (folder / "manifest.json").unlink()
    assert resolve_model("builtin:pythia", tmp_path, small("pythia", steps=1)) == str(folder)
    assert weights(str(folder)) == whole


_ASK = """
import sys
from pathlib import Path
import sfa_hf.models.cache as cache
fill = cache._fill
cache._fill = lambda *args: (Path(sys.argv[1], f"built-by-{sys.argv[2]}").touch(), fill(*args))
from sfa_hf.models import Recipe, resolve_model
recipe = Recipe("pythia", hidden=32, vocabulary=400, documents=200, steps=3)
print(resolve_model("builtin:pythia", Path(sys.argv[1]) / "cache", recipe))
"""


@pytest.mark.slow
def test_of_processes_that_ask_at_once_one_builds(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    answers = {process.communicate(timeout=120)[0].splitlines()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(answers) == 1
    assert len(list(tmp_path.glob("built-by-*"))) == 1
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {"", ".lock"}


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SFA_HF_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "sfa_hf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "sfa_hf"
    monkeypatch.setenv("SFA_HF_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_the_manifest_lists_every_file(cache: Path) -> None:
    folder = Path(resolve_model("builtin:pythia", cache, small("pythia")))
    listed = json.loads((folder / "manifest.json").read_text())
    assert set(listed) == {path.name for path in folder.iterdir()} - {"manifest.json"}
