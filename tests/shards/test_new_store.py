"""The store that docs/contributing.md writes keeps an anchor in training, from one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import BeforeAndAfter, Watch, train, worst_ulp
from torch import Tensor

from sfa_hf import EWCCallback, SFACallback
from sfa_hf.errors import ConfigError
from sfa_hf.shards.store import known_stores
from tests.plugins import code_of, plugged

CODE = code_of("contributing.md", "Exercise 3")


@pytest.fixture(autouse=True)
def _in_its_place(tmp_path: Path) -> Iterator[None]:
    with plugged("sfa_hf.shards.stores", "fp8", CODE, known_stores, tmp_path):
        yield


def in_fp8(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a tiny model, which are one range."""
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    scale = 2.0 ** (448 / flat.abs().max().double()).log2().floor()
    kept = ((flat.double() * scale).float().to(torch.float8_e4m3fn).double() / scale).float()
    sizes = [weight.numel() for weight in weights.values()]
    return {name: part.view_as(weights[name]) for name, part in zip(weights, kept.split(sizes), strict=True)}


def test_it_is_short() -> None:
    assert len(CODE.splitlines()) <= 35


def test_merges_are_with_the_rounded_anchor_also_after_a_resume(tmp_path: Path) -> None:
    changes = {"save_strategy": "steps", "save_steps": 4}
    before, after = Watch(), BeforeAndAfter()
    callback = SFACallback(0.3, 0.5, anchor_device="fp8")
    train(tmp_path / "run", [before, callback, after], **changes)
    theta_o = in_fp8(before.at[0])
    assert callback.nbytes == sum(weight.numel() for weight in theta_o.values())
    for step in (4, 8):
        for name in theta_o:
            assert worst_ulp(before.at[step][name], theta_o[name], after.at[step][name], 0.3) <= 0.5 + 1e-6
    again = BeforeAndAfter()
    checkpoint = str(tmp_path / "run" / "checkpoint-4")
    train(
        tmp_path / "run",
        [SFACallback(0.3, 0.5, anchor_device="fp8"), again],
        resume_from_checkpoint=checkpoint,
    )
    assert all(weight.equal(after.at[8][name]) for name, weight in again.at[8].items())


def test_ewc_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"anchor_device: 'fp8' rounds .*\(cpu, device, disk\)"):
        EWCCallback([("fisher", "model")], anchor_device="fp8")


def test_it_is_listed_where_a_name_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"anchor_device: .*known: cpu, device, disk, fp8"):
        SFACallback(anchor_device="fp9")
