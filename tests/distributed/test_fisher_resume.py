"""A training merged by second moments goes on from a checkpoint, on two processes, as if never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import run_ranks
from test_penalties import full_weights, settings
from tiny_training import rows, tiny_model
from torch import Tensor
from transformers import Trainer, TrainerCallback

from sfa_hf import SecondMomentsCallback, SFACallback
from sfa_hf.distributed import clean_end
from sfa_hf.moments.folder import MomentFolder


def trained(
    folder: Path, stage: int | None, callback: TrainerCallback, seed: int = 0, checkpoint: str | None = None
) -> dict[str, Tensor]:
    args = settings(folder, stage, save_strategy="steps", save_steps=2)
    trainer = Trainer(tiny_model(seed), args, train_dataset=rows(), callbacks=[callback])
    trainer.train(resume_from_checkpoint=checkpoint)
    found = {name: weight.clone() for name, weight in full_weights(trainer.model, stage).items()}
    trainer.accelerator.free_memory()
    return found


def resumed(folder: str, stages: list[int | None]) -> dict[str, bool]:
    """Merges after steps 2 and 4; resumed from step 2, whose merge the checkpoint holds."""
    same = {}
    with clean_end():
        for stage in stages:
            place = Path(folder, str(stage))
            trained(place / "past", stage, SecondMomentsCallback())
            moments = place / "past" / "_second_moments"

            def merging(moments: Path = moments) -> SFACallback:
                return SFACallback(0.4, 0.5, rule="fisher", anchor_moments=moments)

            whole = trained(place / "run", stage, merging())
            left = MomentFolder(place / "run" / "_second_moments").facts.fingerprint
            again = trained(place / "run", stage, merging(), 1, str(place / "run" / "checkpoint-2"))
            found = MomentFolder(place / "run" / "_second_moments").facts.fingerprint
            same[str(stage)] = found == left and all(again[n].equal(w) for n, w in whole.items())
    return same


@pytest.mark.slow
@pytest.mark.parametrize("stages", [[3], [None, 1, 2]], ids=str)
def test_the_same_bits(tmp_path: Path, stages: list[int | None]) -> None:
    for same in run_ranks(resumed, 2, folder=str(tmp_path), stages=stages):
        assert same == {str(stage): True for stage in stages}
