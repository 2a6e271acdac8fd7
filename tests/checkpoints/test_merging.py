"""Merges of saved models: equal to the rules in memory, loadable, atomic, of bounded memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import merge, saved, stored, tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from sfa_hf.checkpoints import merging
from sfa_hf.errors import ConfigError
from sfa_hf.rules import BLOCK, MergeRule, known_rules, merge_state_dicts

OPTIONS: dict[str, dict[str, Any]] = {
    "average": {"weights": [0.2, 0.8]},
    "wise_ft": {"alpha": 0.3},
    "slerp": {"t": 0.3},
    "task_arithmetic": {"lambda": 0.7},
    "ties": {"density": 0.3},
    "dare": {"drop": 0.5, "seed": 3},
    "fisher": {"weights": [0.3, 0.7]},
}
# More entries than a block in one tensor.
WIDE = {"vocab_size": BLOCK // 32 + 100, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    saved(place / "base", 0, **WIDE)
    saved(place / "a", 1, **WIDE, max_shard_size="100KB")  # in other files than the others
    saved(place / "b", 2, **WIDE)
    for name, seed in (("a", 1), ("b", 2)):
        generator = torch.Generator().manual_seed(seed)
        f = {key: torch.rand(w.shape, generator=generator) for key, w in stored(place / name).items()}
        save_file(f, place / f"{name}-f.safetensors")
    return place


def recipe_for(name: str, folders: Path, **options: Any) -> dict[str, Any]:
    kind = known_rules()[name]
    models: list[Any] = [str(folders / each) for each in ("a", "b")][: kind.exactly]
    if kind.needs_importances:
        models = [{"path": each, "fisher": f"{each}-f.safetensors"} for each in models]
    base = {"base": str(folders / "base")} if kind.needs_base else {}
    return {"models": models, **base, "rule": {"name": name, **OPTIONS[name], **options}}


def in_memory(rule: MergeRule, folders: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    def wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: tensor.to(dtype) for key, tensor in tensors.items()}

    names = ["a", "b"][: rule.exactly]
    models = [wide(stored(folders / name)) for name in names]
    fs = [wide(stored_file(folders / f"{name}-f.safetensors")) for name in names]
    base = wide(stored(folders / "base")) if rule.needs_base else None
    return merge_state_dicts(rule, models, base, fs if rule.needs_importances else ())


def stored_file(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


CASES = [(name, {}) for name in sorted(known_rules())]
CASES += [("ties", {"threshold": "tensor"}), ("dare", {"sign_election": True})]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_streamed_is_in_memory_bit_for_bit(
    name: str, options: dict[str, Any], folders: Path, tmp_path: Path
) -> None:
    merge(tmp_path / "out", **recipe_for(name, folders, **options), threads=3)
    rule = known_rules()[name].model_validate({**OPTIONS[name], **options})
    expected, result = in_memory(rule, folders, torch.float32), stored(tmp_path / "out")
    assert result.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(result[key].view(torch.int16), tensor.bfloat16().view(torch.int16)), key


def test_fp32_models_are_merged_in_fp64(tmp_path: Path) -> None:
    models = [saved(tmp_path / str(seed), seed, dtype=torch.float32) for seed in range(3)]
    merge(tmp_path / "out", models=models, rule={"name": "average", "weights": [0.5, 0.25, 0.25]})
    for key, result in stored(tmp_path / "out").items():
        a, b, c = (stored(model)[key].double() for model in models)
        exact = a / 2 + b / 4 + c / 4
        assert torch.equal(result, exact.float())


def test_the_result_loads_and_its_shards_are_as_save_pretrained_makes_them(
    folders: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    merge(out, **recipe_for("ties", folders), max_shard_size="300KB")
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for key, weight in stored(out).items():
        assert torch.equal(model.state_dict()[key], weight)
    model.save_pretrained(tmp_path / "again", max_shard_size="300KB")
    index = "model.safetensors.index.json"
    ours, theirs = (json.loads((each / index).read_text()) for each in (out, tmp_path / "again"))
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    assert set(ours["weight_map"].values()) == {path.name for path in out.glob("*.safetensors")}
    assert len(set(ours["weight_map"].values())) == 2


def test_the_output_may_have_another_dtype(folders: Path, tmp_path: Path) -> None:
    merge(tmp_path / "out", **recipe_for("average", folders), dtype="float32", parameters=[copied("norm")])
    assert {tensor.dtype for tensor in stored(tmp_path / "out").values()} == {torch.float32}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def copied(pattern: str) -> dict[str, Any]:
    return {"match": pattern, "copy": True}


def test_patterns_copy_tensors_or_set_options_and_the_first_wins(folders: Path, tmp_path: Path) -> None:
    patterns = [copied(r"self_attn\.q"), {"match": "self_attn", "lambda": 0.0}, copied("k_proj")]
    recipe = recipe_for("task_arithmetic", folders)
    done = merge(tmp_path / "out", **recipe, parameters=patterns)
    assert [name.split(".")[-2] for name in done.copied] == ["q_proj"]
    base, result = stored(folders / "base"), stored(tmp_path / "out")
    same = {key for key in base if torch.equal(base[key], result[key])}
    assert {key for key in base if "self_attn" in key} <= same
    assert not any("mlp" in key for key in same)


def test_tensors_that_are_copied_do_not_count_for_the_vectors_threshold(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", 0, dtype=torch.float32)
    model = tiny_llama(0, torch.float32)
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(100)
        model.lm_head.weight.add_(torch.randn(model.lm_head.weight.shape))
    model.save_pretrained(tmp_path / "m")
    rule = {"name": "ties", "density": 0.5}
    merge(tmp_path / "out", models=[str(tmp_path / "m")], base=base, rule=rule, parameters=[copied("embed")])
    moved = {key: (w != stored(base)[key]).sum().item() for key, w in stored(tmp_path / "out").items()}
    assert moved["lm_head.weight"] == model.lm_head.weight.numel()  # all that moved is within the top half
    assert moved["model.embed_tokens.weight"] == 0


@pytest.mark.parametrize("tied_first", [True, False])
def test_tied_and_untied_models_meet(tied_first: bool, tmp_path: Path) -> None:
    tied = saved(tmp_path / "tied", 0, tie_word_embeddings=True)
    untied = saved(tmp_path / "untied", 1)
    assert "lm_head.weight" not in stored(tied)
    recipe = {"models": [tied, untied] if tied_first else [untied, tied], "rule": {"name": "average"}}
    if tied_first:
        with pytest.raises(
            ConfigError, match=r"models\.1: .*untied has a lm_head\.weight of its own.* ties it"
        ):
            merge(tmp_path / "out", **recipe)
    merge(tmp_path / "out", **recipe, config_from=untied)
    result = stored(tmp_path / "out")
    head = (stored(untied)["lm_head.weight"].float() + stored(tied)["model.embed_tokens.weight"].float()) / 2
    assert torch.equal(result["lm_head.weight"], head.bfloat16())


def test_a_head_that_is_the_embedding_again_may_be_left_out(tmp_path: Path) -> None:
    tied, stored_twice = (saved(tmp_path / name, 0, tie_word_embeddings=True) for name in ("a", "b"))
    tensors = stored(stored_twice)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, Path(stored_twice, "model.safetensors"))
    merge(tmp_path / "out", models=[tied, stored_twice], rule={"name": "average"})
    assert "lm_head.weight" not in stored(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_theta": 1e6}, r"rope_parameters\.rope_theta 1000000\.0 and 10000\.0"),
        ({"num_attention_heads": 4, "head_dim": 8}, "head_dim 8 and 16"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act gelu and silu"),
    ],
)
def test_models_that_compute_otherwise_are_refused(change: dict, named: str, tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", 0), saved(tmp_path / "other", 1, **change)
    with pytest.raises(ConfigError, match=rf"models\.1: .*other and .*one compute otherwise: .*{named}"):
        merge(tmp_path / "out", models=[one, other], rule={"name": "average"})
    merge(tmp_path / "out", models=[one, other], rule={"name": "average"}, configs="any")


def test_configs_that_say_the_same_in_other_words_are_merged(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", 0), saved(tmp_path / "other", 1)
    file = Path(other, "config.json")
    config = json.loads(file.read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    del config["hidden_act"]
    file.write_text(json.dumps({**config, "rope_theta": theta, "use_cache": False, "dtype": "float16"}))
    merge(tmp_path / "out", models=[one, other], rule={"name": "average"})


def test_one_file_counts_before_an_old_index_and_its_shards(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", 0), saved(tmp_path / "other", 1)
    saved(tmp_path / "old", 2, max_shard_size="20KB")
    for file in (tmp_path / "old").glob("model*"):
        shutil.copyfile(file, Path(other, file.name))
    merge(tmp_path / "out", models=[one, other], rule={"name": "average", "weights": [0.0, 1.0]})
    loaded = LlamaForCausalLM.from_pretrained(other).state_dict()
    merged = stored(tmp_path / "out")
    assert all(torch.equal(merged[name], weight) for name, weight in loaded.items() if name in merged)


def test_a_missing_tensor_is_refused_or_copied(tmp_path: Path) -> None:
    whole, less = saved(tmp_path / "whole", 0), saved(tmp_path / "less", 1)
    tensors = stored(less)
    del tensors["model.norm.weight"]
    save_file(tensors, Path(less, "model.safetensors"))
    with pytest.raises(ConfigError, match=r"models\.1: .*less has no tensor model\.norm\.weight"):
        merge(tmp_path / "out", models=[whole, less], rule={"name": "average"})
    done = merge(tmp_path / "out", models=[whole, less], rule={"name": "average"}, missing="copy")
    assert done.copied == ("model.norm.weight",)


@pytest.mark.parametrize(("option", "rows"), [("common", 300), ("base", 320)])
def test_vocabularies_of_two_sizes(option: str, rows: int, tmp_path: Path) -> None:
    large, small = saved(tmp_path / "large", 0), saved(tmp_path / "small", 1, vocab_size=300)
    merge(tmp_path / "out", models=[large, small], rule={"name": "average"}, vocabulary=option)
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    embedding, key = result.get_input_embeddings().weight, "model.embed_tokens.weight"
    assert embedding.shape[0] == rows == result.config.vocab_size
    average = (stored(large)[key][:300].float() + stored(small)[key].float()) / 2
    assert torch.equal(embedding[:300], average.bfloat16())
    assert torch.equal(embedding[300:], stored(large)[key][300:rows])


def test_a_failure_leaves_nothing(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(merging, "copy_side_files", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        merge(tmp_path / "out", **recipe_for("average", folders))
    assert list(tmp_path.iterdir()) == []


def test_a_nan_is_named_and_nothing_written(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", 0)
    shutil.copytree(model, tmp_path / "broken")
    tensors = stored(model)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "broken" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.norm\.weight becomes NaN"):
        merge(tmp_path / "out", models=[model, str(tmp_path / "broken")], rule={"name": "average"})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Three models of 67 MB, all in one tensor, are merged in less than one of them takes."""
    for name in ("base", "a", "b"):
        saved(tmp_path / name)
        weight = torch.empty(2**18, 128, dtype=torch.bfloat16).normal_()
        save_file({"model.embed_tokens.weight": weight}, tmp_path / name / "model.safetensors")
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 48 * 2**20


PEAK = """
import sys
from pathlib import Path
from sfa_hf.checkpoints import make_recipe, merge_checkpoints

def peak():
    # Not ru_maxrss: that of a new process starts with its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

folder, before = Path(sys.argv[1]), peak()
models = [str(folder / "a"), str(folder / "b")]
for name in ("tensor", "vector"):
    rule = {"name": "ties", "threshold": name}
    recipe = make_recipe({"models": models, "base": str(folder / "base"), "rule": rule, "threads": 1})
    merge_checkpoints(recipe, folder / name)
print(peak() - before)
"""
