"""The scripts of ``examples/`` run as printed, and every merge in them is the average in float64."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_training import worst_ulp

from sfa_hf import models
from sfa_hf.anchor.merge import Merged, merge
from sfa_hf.averaging import averaging
from sfa_hf.models import Recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 25
SMALLEST = Recipe("llama", hidden=32, layers=1, heads=2, vocabulary=300, documents=40, steps=2, batch=4)
MERGES = {
    "torch_loop": (None, 4),
    "accelerate_loop": (None, 4),
    "lightning_fit": ("lightning", 4),
    "sentence_embeddings": ("sentence_transformers", 4),
    "trl_sft": ("trl", 4),
    "trl_dpo": ("trl", 4),
    "trl_reward": ("trl", 4),
    "trl_grpo": ("trl", 4),
}
"""The package that a script needs, and how often it merges."""


@pytest.mark.parametrize("name", MERGES)
def test_an_example_merges_as_in_float64(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, expected = MERGES[name]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    errors: list[float] = []
    calls: list[int] = []

    def checked(engine: Any, shards: Sequence[Any], theta_o: Any, **options: Any) -> Merged:
        before = {shard.name: shard.data.clone() for shard in shards}
        start: dict[str, list[Any]] = {}
        for block in theta_o.pieces(shards):
            start.setdefault(block.shard.name, []).append((block.start, block.values.clone()))
        calls.append(len(start))
        merged = merge(engine, shards, theta_o, **options)
        for shard in shards:
            for at, values in start[shard.name]:
                part = slice(at, at + values.numel())
                beta = options["weights"].beta
                errors.append(worst_ulp(before[shard.name][part], values, shard.data[part], beta))
        return merged

    monkeypatch.setattr(averaging, "merge", checked)
    smaller = partial(models.resolve_model, cache_dir=tmp_path / "models", recipe=SMALLEST)
    monkeypatch.setattr(models, "resolve_model", smaller)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert len(calls) == expected
    assert errors
    assert max(errors) <= 0.5 + 1e-6


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda script: script.stem)
def test_an_example_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= LONGEST
