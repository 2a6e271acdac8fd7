"""estimate_second_moments: what Adam would keep, if the weights stood still."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import LlamaForCausalLM, Trainer

from sfa_hf import SFACallback, estimate_second_moments
from sfa_hf.engines import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.moments.folder import MomentFolder
from tests.moments_reference import second_moments
from tests.tiny_training import Odd, arguments, rows, tiny_model, train, weights

BETA2, CLIP = 0.95, 0.05
TRAINING = {
    "train_sampling_strategy": "sequential",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "adam_beta2": BETA2,
    "max_grad_norm": CLIP,
    "weight_decay": 0.1,
    "warmup_steps": 3,
}


def read(folder: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    kept = MomentFolder(folder)
    return {
        name: kept.read(Shard(name, p.data.view(-1), 0, p.shape)).view(p.shape)
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def test_one_pass_keeps_the_weights_and_leaves_the_clipped_batches_moments(tmp_path: Path) -> None:
    model = tiny_model()
    before, args = weights(model), arguments(tmp_path / "run", **TRAINING)
    folder = estimate_second_moments(model, args, rows(), tmp_path / "past")
    assert all(weight.equal(before[name]) for name, weight in weights(model).items())
    assert (args.learning_rate, args.max_steps, args.output_dir) == (1e-2, 8, str(tmp_path / "run"))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["_second_moments", "past"]
    facts = MomentFolder(folder).facts
    assert (facts.tasks, facts.steps, facts.beta2) == (1, 8, BETA2)
    exact = second_moments(tiny_model(), batches=8, batch=8, clip=CLIP, beta2=BETA2)
    for name, f in read(folder, model).items():
        assert (f.double() - exact[name]).abs().max() <= 1e-5 * exact[name].max()


def test_a_model_from_elsewhere_can_then_be_the_anchor_of_a_weighted_merge(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    anchored = {"rule": "fisher", "anchor": tmp_path / "model"}
    with pytest.raises(ConfigError, match=r"no _second_moments in or beside .*estimate_second_moments"):
        train(tmp_path / "law", [SFACallback(**anchored)])
    args = arguments(tmp_path / "law")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    moments = estimate_second_moments(model, args, rows(), tmp_path)
    assert moments == tmp_path / "_second_moments"
    trainer = train(tmp_path / "law", [SFACallback(**anchored)], model=model)
    logged = [entry["sfa/anchor_weight/all"] for entry in trainer.state.log_history if "sfa/merge" in entry]
    assert len(logged) == 4
    assert all(0 < weight < 1 for weight in logged)


def test_parameters_without_gradients_have_none(tmp_path: Path) -> None:
    model = Odd()
    folder = estimate_second_moments(model, arguments(tmp_path), rows(), tmp_path / "past")
    found = read(folder, model)
    assert found["unused"].count_nonzero() == 0
    assert found["embed.weight"].count_nonzero() > 0


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows: are none \(rows of the tasks before\)"):
        estimate_second_moments(tiny_model(), arguments(tmp_path), Dataset.from_list([]), tmp_path / "past")
    assert list(tmp_path.iterdir()) == []


def test_trainers_that_were_there_before_go_on(tmp_path: Path) -> None:
    args = arguments(tmp_path)  # each TrainingArguments resets accelerate's state by itself
    waiting = Trainer(
        tiny_model(), arguments(tmp_path / "code"), train_dataset=rows(), eval_dataset=rows(4, seed=2)
    )
    estimate_second_moments(tiny_model(), args, Dataset.from_list(rows(8)), tmp_path)
    waiting.train()
    assert waiting.evaluate()["eval_loss"] > 0
