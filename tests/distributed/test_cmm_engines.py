"""Linearised training and corrections: one process, DDP and ZeRO-1/2 alike; ZeRO-3 and FSDP2 refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import run_ranks
from tiny_training import VOCABULARY, arguments, rows, tiny_model
from tokenizers import Tokenizer, models
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedTokenizerFast, Trainer

from sfa_hf.correction import correct
from sfa_hf.distributed import clean_end
from sfa_hf.linearised import linearise

STEPS = 4
SETTINGS = {"max_steps": STEPS, "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant"}
SETTINGS |= {"max_grad_norm": 0.0, "logging_steps": 1}


def zero(stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "optimizer": {"type": "SGD", "params": {"lr": SETTINGS["learning_rate"]}},
        "zero_optimization": {"stage": stage},
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
    }


def trained(folder: Path, model: nn.Module, **changes: Any) -> list[float]:
    """Losses of the steps of a training."""
    trainer = Trainer(model, arguments(folder, **SETTINGS, **changes), train_dataset=rows())
    trainer.train()
    return [each["loss"] for each in trainer.state.log_history if "loss" in each]


def corrected(folder: Path, **changes: Any) -> list[float]:
    """Mismatch of features before and after a correction."""
    words = models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="0")
    model, teacher = tiny_model(), tiny_model(seed=4)
    training = {**arguments(folder).to_dict(), **SETTINGS, **changes}
    kept = {key: training[key] for key in (*SETTINGS, *changes, "use_cpu", "disable_tqdm")}
    kept.setdefault("per_device_train_batch_size", 4)
    done = correct(model, teacher, rows(), tokenizer, folder, heldout=rows(8, seed=2), **kept)
    return [done.before.mean, done.after.mean]


def everything(folder: str, stages: list[int], corrections: bool) -> dict[str, Any]:
    with clean_end():
        share = {"per_device_train_batch_size": 2}
        engines = {"ddp": {"ddp_backend": "gloo", **share}}
        engines |= {f"zero{stage}": {"deepspeed": zero(stage), **share} for stage in stages}
        found: dict[str, Any] = {}
        for engine, changes in engines.items():
            found[engine] = trained(Path(folder, engine), linearise(tiny_model()), **changes)
            if engine == "ddp":
                found["fsdp2"] = refusal(sharded_pass)
            if corrections:
                found[f"{engine} corrected"] = corrected(Path(folder, f"c-{engine}"), **changes)
        third = {"deepspeed": zero(3), **share}
        found["zero3 corrected"] = refusal(lambda: corrected(Path(folder, "c3"), **third))
        model = linearise(tiny_model())
        found["zero3"] = refusal(lambda: trained(Path(folder, "3"), model, **third))
        return found


def sharded_pass() -> None:
    model = linearise(tiny_model())
    fully_shard(model)
    model(input_ids=rows(1)[0]["input_ids"][None])


def refusal(act: Any) -> str:
    try:
        act()
    except NotImplementedError as error:
        return str(error)
    return "not refused"


def check(folder: Path, stages: list[int], *, corrections: bool) -> None:
    alone = trained(folder / "alone", linearise(tiny_model()))
    plain = trained(folder / "plain", tiny_model())
    assert abs(plain[-1] - alone[-1]) > 1e-3, "a training in which linearising changes nothing"
    before, after = corrected(folder / "corrected")
    assert after < 0.99 * before
    first, second = run_ranks(everything, 2, folder=str(folder), stages=stages, corrections=corrections)
    for engine in ("ddp", *(f"zero{stage}" for stage in stages)):
        torch.testing.assert_close(torch.tensor(first[engine]), torch.tensor(alone), rtol=0, atol=2e-4)
        if corrections:
            assert first[f"{engine} corrected"] == second[f"{engine} corrected"]
            assert first[f"{engine} corrected"] == pytest.approx([before, after], rel=1e-4)
    for engine, name in (("zero3", "ZeRO-3"), ("zero3 corrected", "ZeRO-3"), ("fsdp2", "FSDP2")):
        assert name in first[engine]
        assert "supported: one process, DDP" in first[engine]


@pytest.mark.slow
def test_linearised_training_is_the_same_under_ddp_and_zero_2(tmp_path: Path) -> None:
    check(tmp_path, [2], corrections=False)


@pytest.mark.slow
def test_so_it_is_on_the_other_engines_and_so_are_corrections(tmp_path: Path) -> None:
    check(tmp_path, [0, 1, 2], corrections=True)
