"""SFACallback in a Trainer under ZeRO-2 and ZeRO-3: whatever is evaluated or saved at a merge is merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.utils import safe_get_full_fp32_param
from harness import run_ranks
from safetensors.torch import load_file
from tiny_training import arguments, rows, tiny_model
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from sfa_hf import SFACallback
from sfa_hf.distributed import clean_end

BETA = 0.3


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_evaluation_checkpoint_and_saves_hold_the_merged_weights(stage: int, tmp_path: Path) -> None:
    for seen in run_ranks(train_and_save, 2, stage=stage, folder=str(tmp_path)):
        assert seen["merges"] == 2
        assert seen["worst_ulp"] <= 1
        assert seen["resumed_to_the_same_bits"]
    step_2, step_4 = (torch.load(tmp_path / f"masters-{step}.pt", weights_only=True) for step in (2, 4))
    assert _differing(load_file(tmp_path / "checkpoint-2" / "model.safetensors"), step_2) == []
    assert _differing(load_file(tmp_path / "checkpoint-4" / "model.safetensors"), step_4) == []
    assert _differing(load_file(tmp_path / "final" / "model.safetensors"), step_4) == []
    assert _differing(torch.load(tmp_path / "gathered" / "model.bin", weights_only=True), step_4) == []
    unmerged = torch.load(tmp_path / "unmerged-2.pt", weights_only=True)
    assert seen["eval_loss"] == pytest.approx(_evaluated(step_2), abs=1e-4)
    assert seen["eval_loss"] != pytest.approx(_evaluated(unmerged), abs=1e-3), "a merge too small to notice"


def _differing(saved: dict[str, Tensor], masters: dict[str, Tensor]) -> list[str]:
    return [
        name for name, weight in masters.items() if not torch.equal(saved[name].bfloat16(), weight.bfloat16())
    ]


def _evaluated(masters: dict[str, Tensor]) -> float:
    """Mean loss of the two evaluation batches, one a rank, under these weights in bf16."""
    model = tiny_model().bfloat16().eval()
    model.load_state_dict({name: weight.bfloat16() for name, weight in masters.items()})
    held_out = rows(8, seed=2)
    with torch.no_grad():
        losses = [
            model(**{key: torch.stack([row[key] for row in part]) for key in part[0]}).loss.item()
            for part in (held_out[:4], held_out[4:])
        ]
    return sum(losses) / 2


class Masters(TrainerCallback):
    """Keeps the full fp32 weights of every second step; optionally generates first."""

    def __init__(self, generate: bool) -> None:
        self.generate = generate
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at[0] = _masters(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % 2 == 0:
            if self.generate:
                kwargs["model"].generate(
                    torch.ones(1, 3, dtype=torch.long), max_new_tokens=2, synced_gpus=True
                )
            self.at[state.global_step] = _masters(kwargs["model"])


def _masters(model: nn.Module) -> dict[str, Tensor]:
    return {name: safe_get_full_fp32_param(p).detach().clone() for name, p in model.named_parameters()}


def train_and_save(stage: int, folder: str) -> dict[str, Any]:
    with clean_end():
        before, after = Masters(generate=True), Masters(generate=False)
        trainer = Trainer(
            tiny_model(),
            _arguments(stage, folder),
            train_dataset=rows(),
            eval_dataset=rows(8, seed=2),
            callbacks=[before, SFACallback(BETA, merge_every=2), after],
        )
        trainer.train()
        trainer.save_model(str(Path(folder, "final")))
        trainer.model_wrapped.save_16bit_model(str(Path(folder, "gathered")), "model.bin")
        if trainer.is_world_process_zero():
            for step in (2, 4):
                torch.save(after.at[step], Path(folder, f"masters-{step}.pt"))
            torch.save(before.at[2], Path(folder, "unmerged-2.pt"))
        log = trainer.state.log_history
        resumed = _resumed(stage, folder)
        return {
            "resumed_to_the_same_bits": all(resumed[name].equal(w) for name, w in after.at[4].items()),
            "merges": sum("sfa/merge" in entry for entry in log),
            "worst_ulp": max(_ulps_off(before.at[0], before.at[step], after.at[step]) for step in (2, 4)),
            "eval_loss": next(entry["eval_loss"] for entry in log if "eval_loss" in entry),
        }


def _resumed(stage: int, folder: str) -> dict[str, Tensor]:
    """The masters at step 4 of a training that resumes after step 2, from other initial weights."""
    masters = Masters(generate=False)
    trainer = Trainer(
        tiny_model(seed=1),
        _arguments(stage, folder),
        train_dataset=rows(),
        eval_dataset=rows(8, seed=2),
        callbacks=[SFACallback(BETA, merge_every=2), masters],
    )
    trainer.train(resume_from_checkpoint=str(Path(folder, "checkpoint-2")))
    return masters.at[4]


def _arguments(stage: int, folder: str) -> Any:
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}
    return arguments(
        Path(folder),
        max_steps=4,
        per_device_eval_batch_size=4,
        bf16=True,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        deepspeed={
            "zero_optimization": zero,
            "bf16": {"enabled": True},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "zero_allow_untested_optimizer": True,
        },
    )


def _ulps_off(theta_o: dict[str, Tensor], before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    worst = 0.0
    for name, weight in after.items():
        exact = (1 - BETA) * before[name].double() + BETA * theta_o[name].double()
        largest = torch.maximum(before[name].abs(), theta_o[name].abs())
        ulp = torch.nextafter(largest, torch.tensor(torch.inf)) - largest
        worst = max(worst, ((weight.double() - exact).abs() / ulp.double()).max().item())
    return worst
