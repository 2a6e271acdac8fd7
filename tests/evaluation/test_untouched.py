from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import SCORINGS, model, rows, task, tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from sfa_hf.evaluation import EvaluationOptions, evaluate_task
from sfa_hf.tasks import Encoding, Task, collator, encode


class EvaluateAfterEachStep(TrainerCallback):
    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks
        self.scores: list[float] = []

    def on_step_end(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        assert model.training
        for each in self.tasks:
            score = evaluate_task(model, tokenizer(), each, Encoding(), EvaluationOptions(limit=6))
            self.scores.append(score.value)
        assert model.training


def weights_after_training(folder: Path, callbacks: list[TrainerCallback]) -> dict[str, torch.Tensor]:
    net = model("pythia", hidden_dropout=0.2, attention_dropout=0.1)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=4,
        gradient_checkpointing=True,
        learning_rate=1e-2,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    data, _ = encode(rows(), tokenizer(), Encoding())
    pad = collator(tokenizer())
    Trainer(net, arguments, train_dataset=data, data_collator=pad, callbacks=callbacks).train()
    return net.state_dict()


def test_training_after_evaluation_is_bit_identical_to_training_without(tmp_path: Path) -> None:
    evaluated = EvaluateAfterEachStep([task(tmp_path, scoring) for scoring in SCORINGS.values()])
    plain = weights_after_training(tmp_path, [])
    watched = weights_after_training(tmp_path, [evaluated])
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert len(evaluated.scores) == 4 * len(SCORINGS)
    assert len(set(evaluated.scores[2::3])) == 4, "perplexity should follow the weights"


def draw_from_every_random_state(*_: Any) -> None:
    random.random()
    np.random.random()
    torch.rand(1)


def test_dropout_is_off(tmp_path: Path) -> None:
    small = task(tmp_path, SCORINGS["perplexity"])
    net = model(attention_dropout=0.5)
    resting = evaluate_task(net, tokenizer(), small, Encoding(), EvaluationOptions())
    assert evaluate_task(net.train(), tokenizer(), small, Encoding(), EvaluationOptions()) == resting


@pytest.mark.parametrize("kind", SCORINGS)
def test_modes_random_states_and_configs_are_as_before(kind: str, tmp_path: Path) -> None:
    net = model(attention_dropout=0.5).train()
    net.register_forward_hook(draw_from_every_random_state)
    net.model.layers[0].eval()  # as a frozen block may be
    net.config.use_cache = False
    modes = [module.training for module in net.modules()]
    asked = net.generation_config
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    evaluate_task(net, tokenizer(), task(tmp_path, SCORINGS[kind]), Encoding(), EvaluationOptions())
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert after == before
    assert [module.training for module in net.modules()] == modes
    assert net.config.use_cache is False
    assert net.generation_config is asked
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None and not parameter.is_inference() for parameter in net.parameters())


def test_an_error_leaves_no_trace_either(tmp_path: Path) -> None:
    net = model().train()
    hook = net.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate_task(net, tokenizer(), task(tmp_path, SCORINGS["choice"]), Encoding(), EvaluationOptions())
    hook.remove()
    assert net.training
    assert torch.is_grad_enabled()
