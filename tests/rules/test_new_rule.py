"""The rule that docs/contributing.md writes merges saved models and models in training, from one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import BeforeAndAfter, Watch, train
from torch import Tensor

from sfa_hf import SFACallback
from sfa_hf.checkpoints import make_recipe, merge_checkpoints
from sfa_hf.errors import ConfigError
from sfa_hf.rules import known_rules
from tests.checkpoints.tiny_models import saved, stored
from tests.plugins import code_of, plugged

CODE = code_of("contributing.md", "Exercise 2")


@pytest.fixture(autouse=True)
def _in_its_place(tmp_path: Path) -> Iterator[None]:
    with plugged("sfa_hf.rules", "nlerp", CODE, known_rules, tmp_path):
        yield


def nlerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    a, b = a.double(), b.double()
    line = (1 - t) * a + t * b
    length = (1 - t) * a.norm() + t * b.norm()
    return line * (length / line.norm() if line.any() else 1.0)


def test_it_merges_saved_models(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 1, dtype=torch.float32), saved(tmp_path / "b", 2, dtype=torch.float32)
    recipe = make_recipe({"models": [a, b], "rule": {"name": "nlerp", "t": 0.3}})
    merge_checkpoints(recipe, tmp_path / "out")
    first, second = stored(a), stored(b)
    for name, merged in stored(tmp_path / "out").items():
        torch.testing.assert_close(
            merged.double(), nlerp(first[name], second[name], 0.3), rtol=1e-5, atol=1e-7
        )


def test_it_merges_in_training(tmp_path: Path) -> None:
    before, after = Watch(), BeforeAndAfter()
    train(tmp_path / "run", [before, SFACallback(0.3, 0.5, rule="nlerp"), after])
    for step in (4, 8):
        for name, theta_o in before.at[0].items():
            exact = nlerp(before.at[step][name], theta_o, 0.3)
            torch.testing.assert_close(after.at[step][name].double(), exact, rtol=2**-23, atol=1e-12)


def test_it_is_listed_where_a_name_is_unknown() -> None:
    with pytest.raises(
        ConfigError, match=r"rule: .*did you mean 'nlerp'\? known: average, fisher, nlerp, slerp"
    ):
        SFACallback(rule="nlurp")
