"""What scripts/merge_models.py answers to a mistake: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import saved

ROOT = Path(__file__).parents[2]
TIES = {"name": "ties", "density": 0.2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "a", "b")):
        saved(place / name, seed)
    saved(place / "wide", intermediate_size=96)
    saved(place / "words", vocab_size=300)
    return place


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in models.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    return tmp_path


def answer(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> str:
    script = str(ROOT / "scripts" / "merge_models.py")
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    captured = capsys.readouterr()
    assert ended.value.code == (2 if captured.err else 0), captured.err
    return captured.err or captured.out


def recipe(rule: dict[str, Any] | None = None, models: tuple[Any, ...] = ("a", "b"), **more: Any) -> None:
    values = {"base": "base", "models": list(models), "rule": rule or TIES, **more}
    Path("recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))


def _truncated() -> None:
    Path("cut").mkdir()
    for file in Path("a").iterdir():
        data = file.read_bytes()
        Path("cut", file.name).write_bytes(data[:-100] if file.suffix == ".safetensors" else data)
    recipe(models=("a", "cut"))


def _folder_with(name: str, config: dict[str, Any], *files: str) -> None:
    Path(name).mkdir()
    Path(name, "config.json").write_text(json.dumps(config))
    for file in files:
        Path(name, file).write_bytes(b"x")
    recipe(models=("a", name))


def _tokenizers() -> None:
    for name, vocabulary in (("t1", {"x": 0, "y": 1}), ("t2", {"y": 0, "x": 1})):
        Path(name).mkdir()
        for file in Path("a").iterdir():
            Path(name, file.name).write_bytes(file.read_bytes())
        Path(name, "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    recipe(models=("t1", "t2"))


def _exists() -> None:
    recipe()
    Path("out").mkdir()


def _broken_yaml() -> None:
    Path("recipe.yaml").write_text("models: [a")


def _average(*weights: float) -> dict[str, Any]:
    return {"name": "average", "weights": list(weights)}


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: recipe(densty=1), "densty: is not a known key"),
    (lambda: recipe({**TIES, "lamda": 1.0}), "rule.lamda: is not a known key (did you mean 'lambda'?"),
    (lambda: recipe({"name": "tise"}), "rule.name: there is no rule 'tise' (did you mean 'ties'?"),
    (lambda: recipe({"density": 0.5}), "rule.name: is missing"),
    (
        lambda: recipe({"name": "average", "density": 0.5}),
        "rule.density: is not an option of average (one of ties;",
    ),
    (lambda: recipe({**TIES, "density": 0}), "rule.density: is 0 (must be greater than 0)"),
    (lambda: recipe({**TIES, "lambda": float("nan")}), "rule.lambda: is nan (must be a finite number)"),
    (lambda: recipe({"name": "dare", "drop": 1.0}), "rule.drop: is 1.0 (must be less than 1)"),
    (lambda: recipe(_average(0.5, 0.4)), "rule.weights: sum to 0.9 (weights that sum to 1"),
    (lambda: recipe(_average(0.5, 0.4, 0.1)), "rule.weights: holds 3 for 2 models"),
    (lambda: recipe(base=None), "base: is missing (ties works on differences"),
    (lambda: recipe({"name": "slerp"}, ("a", "b", "base")), "models: are 3 (slerp takes 2)"),
    (lambda: recipe({"name": "fisher"}), "models.0.fisher: is missing"),
    (lambda: recipe(models=({"path": "a", "fisher": "f"},)), "models.0.fisher: is not read by ties"),
    (lambda: recipe(parameters=[{"match": "(", "copy": True}]), "parameters.0.match: '(' is not a regular"),
    (lambda: recipe(parameters=[{"match": "x"}]), "parameters.0: has to say one thing"),
    (lambda: recipe(parameters=[{"match": "x", "densty": 1}]), "parameters.0.densty: is not a known key"),
    (lambda: recipe(parameters=[{"match": "x", "density": 0.5}]), "parameters.0: sets the density"),
    (lambda: recipe(parameters=[{"match": ".", "copy": True}]), "parameters: leave nothing to merge"),
    (lambda: recipe(max_shard_size="5 apples"), "max_shard_size: is '5 apples'"),
    (lambda: recipe(config_from="c"), "config_from: c is none of the models (base, a, b)"),
    (lambda: recipe(models=("a", "./gone")), "models.1: there is no folder ./gone"),
    (
        lambda: recipe(models=("a", "wide")),
        "models.1: wide has model.layers.0.mlp.down_proj.weight of shape [32, 96], base [32, 64]",
    ),
    (
        lambda: recipe(models=("a", "words")),
        "models.1: words has lm_head.weight of shape [300, 32], base [320, 32] (one vocabulary, or",
    ),
    (lambda: _folder_with("bin", {}, "pytorch_model.bin"), "models.1: bin has no weights (a pickled .bin"),
    (
        lambda: _folder_with("adapter", {}, "adapter_config.json"),
        "models.1: adapter/adapter_config.json is not valid",
    ),
    (lambda: _folder_with("q", {"quantization_config": {}}), "models.1: q is quantised"),
    (
        lambda: _folder_with("junk", {}, "model.safetensors"),
        "models.1: junk/model.safetensors cannot be read",
    ),
    (_truncated, "models.1: cut/model.safetensors cannot be read"),
    (_tokenizers, "models.1: t2 has token 'y' at id 0, t1 'x'"),
    (_exists, "OUT_DIR: out exists (a new folder)"),
    (_broken_yaml, "recipe.yaml: is not valid YAML"),
]


@pytest.mark.parametrize(("mistake", "message"), BAD, ids=[message.partition(" (")[0] for _, message in BAD])
def test_a_mistake_is_one_line(
    mistake: Callable[[], Any], message: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    mistake()
    before = sorted(place.rglob("*"))
    line = answer(monkeypatch, capsys, "recipe.yaml", "out")
    assert line.startswith(f"error: {message}"), line
    assert line.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_the_script_merges_and_says_so(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    recipe()
    said = answer(monkeypatch, capsys, "recipe.yaml", "new/out", "rule.lambda=0.5")
    assert "21 tensors merged, 0 copied" in said
    written = yaml.safe_load((place / "new" / "out" / "merge.yaml").read_text())
    assert written["rule"] == {
        "name": "ties",
        "density": 0.2,
        "lambda": 0.5,
        "weights": None,
        "threshold": "vector",
    }


def test_another_rule_on_the_command_line_drops_the_first_ones_options(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    recipe()
    assert "merged" in answer(monkeypatch, capsys, "recipe.yaml", "out", "rule.name=task_arithmetic")


@pytest.mark.slow
def test_a_merge_of_folders_imports_no_transformers(place: Path) -> None:
    import subprocess

    recipe()
    code = "import sys, sfa_hf.checkpoints as c; from pathlib import Path\n"
    code += "c.merge_checkpoints(c.make_recipe(c.read_recipe('recipe.yaml')), Path('out'))\n"
    code += "sys.exit(any(name.partition('.')[0] in ('transformers', 'peft') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=place, check=False).returncode == 0


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "merges").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_shipped_recipes_are_right(file: Path) -> None:
    from sfa_hf.checkpoints import make_recipe, read_recipe

    assert make_recipe(read_recipe(str(file))).resolved["rule"]["name"] == file.stem.replace("-", "_")
