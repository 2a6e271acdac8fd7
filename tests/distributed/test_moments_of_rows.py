"""estimate_second_moments on two processes, under DDP and ZeRO 1, 2, 3: as in float64 on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import run_ranks
from moments_reference import second_moments
from test_penalties import settings
from tiny_training import rows, tiny_model

from sfa_hf import estimate_second_moments
from sfa_hf.distributed import clean_end
from sfa_hf.engines import Shard
from sfa_hf.moments.folder import MomentFolder

BETA2, CLIP, BATCHES = 0.95, 0.05, 16
ADAM = {
    "train_sampling_strategy": "sequential",
    "adam_beta2": BETA2,
    "max_grad_norm": CLIP,
    "weight_decay": 0.1,
}


def everything(folder: str, stages: list[int | None]) -> None:
    with clean_end():
        for stage in stages:
            args = settings(Path(folder, "run"), stage, **ADAM)
            estimate_second_moments(tiny_model(), args, rows(), Path(folder, str(stage)))


@pytest.mark.parametrize("stages", [[3], pytest.param([None, 1, 2], marks=pytest.mark.slow)], ids=str)
def test_as_on_one_process_in_float64(tmp_path: Path, stages: list[int | None]) -> None:
    run_ranks(everything, 2, folder=str(tmp_path), stages=stages)
    exact = second_moments(tiny_model(), BATCHES, batch=4, clip=CLIP, beta2=BETA2)
    for stage in stages:
        kept = MomentFolder(tmp_path / str(stage) / "_second_moments")
        assert kept.facts.steps == BATCHES
        for name, f in exact.items():
            found = kept.read(Shard(name, torch.empty(f.numel(), device="meta"), 0, f.shape)).view(f.shape)
            assert (found.double() - f).abs().max() <= 1e-5 * f.max(), (stage, name)
