"""TRL's callbacks that average weights, beside ours: frozen parameters, a resume, ZeRO-3.

What TRL's do is asserted as it is, so that a newer TRL that does something else is noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from distributed import trainer_rows
from distributed.harness import run_ranks
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from test_examples import SMALLEST
from tiny_training import Watch, tiny_model, train, weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from sfa_hf import EMACallback, SFACallback
from sfa_hf.models import resolve_model

trl = pytest.importorskip("trl")

Weights = dict[str, Tensor]
BETA, DECAY, ALPHA = 0.5, 0.7, 0.6
SAVES: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
ZERO_3 = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 1000},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_allow_untested_optimizer": True,
}
"""Parameters of both kinds: that stay gathered, and that do not."""
OURS = [partial(SFACallback, BETA, merge_every=4), partial(EMACallback, DECAY)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a language model and its tokenizer."""
    return str(resolve_model("builtin:llama", cache_dir=tmp_path_factory.mktemp("models"), recipe=SMALLEST))


def dpo(folder: Path, start: str, callbacks: list[TrainerCallback], frozen: str = "", **changes: Any) -> Any:
    """A DPOTrainer of four steps whose reference follows the weights after steps 2 and 4."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if frozen:
        model.get_parameter(frozen).requires_grad_(False)
    options = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "sync_ref_model": True,
        "ref_model_sync_steps": 2,
        "ref_model_mixup_alpha": ALPHA,
        **changes,
    }
    rows = [{"prompt": f"{n} plus {n} is", "chosen": f" {2 * n}.", "rejected": " 7."} for n in range(16)]
    return trl.DPOTrainer(
        model,
        args=trl.DPOConfig(str(folder), **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def mixed(reference: Weights, theta: Weights) -> Weights:
    """What SyncRefModelCallback makes of a reference, in float64."""
    return {n: (1 - ALPHA) * reference[n].double() + ALPHA * w.double() for n, w in theta.items()}


def bema(at: dict[int, Weights], start: int) -> Weights:
    """What BEMACallback(update_freq=1) keeps from a step on, in float64 (arXiv 2508.00180, its defaults)."""
    theta_0 = {name: weight.double() for name, weight in at[start].items()}
    average = dict(theta_0)
    for step in range(start + 1, max(at) + 1):
        beta = (10 + step) ** -0.5
        average = {n: (1 - beta) * average[n] + beta * w.double() for n, w in at[step].items()}
    alpha = (10 + max(at)) ** -0.2
    return {n: average[n] + alpha * (w.double() - theta_0[n]) for n, w in at[max(at)].items()}


def close(found: Weights, expected: Weights) -> bool:
    assert expected
    return all(torch.allclose(found[n].double(), w.double(), rtol=0, atol=1e-6) for n, w in expected.items())


def same_bits(found: Weights, expected: Weights) -> bool:
    assert expected
    return all(found[name].equal(weight) for name, weight in expected.items())


def frozen_embedding() -> nn.Module:
    model = tiny_model()
    model.get_input_embeddings().requires_grad_(False)
    return model


def frozen_head() -> nn.Module:
    model = tiny_model()
    model.lm_head.requires_grad_(False)
    return model


def lora() -> nn.Module:
    return get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"], r=2))


@pytest.mark.parametrize(
    ("model", "error", "message", "step"),
    [
        (frozen_embedding, RuntimeError, "must match the size", 3),
        (frozen_head, ValueError, r"zip\(\) argument 4 is longer", 3),
        (lora, TypeError, "missing .* 'peft_config'", 0),
    ],
)
def test_bema_with_frozen_parameters_ends_the_training(
    tmp_path: Path, model: Callable[[], nn.Module], error: type[Exception], message: str, step: int
) -> None:
    watch = Watch()
    # At the first update, the trainable parameters are paired with all parameters of a copy of the model. The
    # copy is made at the start by the model's class from its config, as one of PEFT's cannot be.
    with pytest.raises(error, match=message):
        train(tmp_path, [watch, trl.BEMACallback(update_freq=3)], model())
    assert max(watch.at) == step
    assert not (tmp_path / "bema").exists()


@pytest.mark.parametrize("callback", OURS)
def test_ours_leave_frozen_parameters_alone(tmp_path: Path, callback: Callable[[], TrainerCallback]) -> None:
    model, watch = frozen_embedding(), Watch()
    frozen = model.get_input_embeddings().weight.detach().clone()
    train(tmp_path, [watch, callback()], model, max_steps=4)
    assert model.get_input_embeddings().weight.equal(frozen)
    assert close(weights(model), ended(callback, watch.at))


def ended(callback: Any, at: dict[int, Weights]) -> Weights:
    """The weights in which one of ours ends, from those that the optimizer left at each step, in float64."""
    last = max(at)
    if callback.func is SFACallback:
        return {n: (1 - BETA) * w.double() + BETA * at[0][n].double() for n, w in at[last].items()}
    average = {name: weight.double() for name, weight in at[0].items()}
    for step in range(1, last + 1):
        average = {n: DECAY * average[n] + (1 - DECAY) * w.double() for n, w in at[step].items()}
    return average


def test_the_reference_follows_merged_weights_and_moves_where_they_are_frozen(
    tmp_path: Path, start: str
) -> None:
    frozen, watch = "model.embed_tokens.weight", Watch()
    trainer = dpo(tmp_path, start, [watch, SFACallback(BETA, merge_every=2)], frozen, max_steps=2)
    theta_o = weights(trainer.ref_model)
    before = trainer.model.get_parameter(frozen).detach().clone()
    trainer.train()
    merged, reference = weights(trainer.model), trainer.ref_model.state_dict()
    assert not close(merged, watch.at[2])
    assert close(reference, mixed(theta_o, merged))  # TRL puts its callback behind those that it is given
    # 0.4 w + 0.6 w is not w in fp32: all parameters of the reference are written, the frozen ones too.
    assert trainer.model.get_parameter(frozen).equal(before)
    assert not reference[frozen].equal(before)
    assert close(reference, {frozen: before})


def test_bema_starts_again_on_resume(tmp_path: Path) -> None:
    whole, callback = Watch(), partial(trl.BEMACallback, update_freq=1)
    train(tmp_path / "whole", [whole, callback()], **SAVES)
    checkpoint = str(tmp_path / "whole" / "checkpoint-4")
    again = train(tmp_path / "again", [callback()], tiny_model(1), resume_from_checkpoint=checkpoint)
    assert same_bits(weights(again.model), whole.at[8])
    kept, found = (load_file(tmp_path / name / "bema" / "model.safetensors") for name in ("whole", "again"))
    assert close(kept, bema(whole.at, 0))
    assert close(found, bema(whole.at, 4))  # theta_0 and the average are in no checkpoint
    assert not close(found, kept)


@pytest.mark.parametrize("callback", OURS)
def test_ours_end_in_the_same_bits_on_resume(tmp_path: Path, callback: Callable[[], TrainerCallback]) -> None:
    expected = weights(train(tmp_path, [callback()], **SAVES).model)
    checkpoint = str(tmp_path / "checkpoint-4")
    again = train(tmp_path, [callback()], tiny_model(1), resume_from_checkpoint=checkpoint, **SAVES)
    assert same_bits(weights(again.model), expected)


@pytest.mark.parametrize("sync", [True, False])
def test_the_reference_starts_again_on_resume_and_the_training_is_another(
    tmp_path: Path, start: str, sync: bool
) -> None:
    options = {"sync_ref_model": sync, "save_strategy": "steps", "save_steps": 2}
    whole = dpo(tmp_path, start, [SFACallback(BETA, merge_every=4)], **options)
    theta_o = weights(whole.ref_model)
    whole.train()
    again = dpo(tmp_path, start, [SFACallback(BETA, merge_every=4)], **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    theta = weights(again.model)
    assert same_bits(theta, weights(whole.model)) == (not sync)
    if sync:  # the reference is in no checkpoint: it is read again from where the model came from
        assert close(weights(again.ref_model), mixed(theta_o, theta))


class WatchWhole(TrainerCallback):
    """Keeps at each step the whole weights, and those of a reference that is set once there is one."""

    def __init__(self) -> None:
        self.at: dict[int, Weights] = {}
        self.reference: dict[int, Weights] = {}
        self.ref_model: nn.Module | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_step_end(args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at[state.global_step] = trainer_rows.whole(kwargs["model"])
        if self.ref_model is not None:
            self.reference[state.global_step] = trainer_rows.whole(self.ref_model)


@pytest.mark.slow
def test_under_zero_3(tmp_path: Path, start: str) -> None:
    run_ranks(under_zero_3, 2, seconds=600, start=start, folder=str(tmp_path))


def under_zero_3(start: str, folder: str) -> None:
    with trainer_rows.training():
        bema_fails_at_the_start(Path(folder, "bema"))
        the_reference_follows(start, Path(folder, "reference"))
        for number, callback in enumerate(OURS):
            ours_end_as_in_float64(callback, Path(folder, str(number)))


def bema_fails_at_the_start(folder: Path) -> None:
    watch = WatchWhole()
    # Its copy of the model is whole, and is given parameters that have no elements between two steps.
    with pytest.raises(RuntimeError, match=r"size mismatch.*torch\.Size\(\[0\]\) from checkpoint"):
        trainer_rows.train("zero3", folder, [watch, trl.BEMACallback(update_freq=1)])
    assert max(watch.at) == 0


def the_reference_follows(start: str, folder: Path) -> None:
    before, after = WatchWhole(), WatchWhole()
    sfa = SFACallback(BETA, merge_every=4)
    trainer = dpo(folder, start, [before, sfa], deepspeed=ZERO_3)
    trainer.add_callback(after)
    before.ref_model = after.ref_model = trainer.ref_model.module
    trainer.train()
    assert same_bits(after.reference[1], after.at[0])
    assert close(after.reference[2], mixed(after.at[0], after.at[2]))
    # No optimizer holds masters of the reference, so that what is written where it is gathered lasts.
    assert same_bits(before.reference[4], after.reference[2])
    # The weights are gathered to be written too, and are what they were.
    assert same_bits(after.at[2], before.at[2])
    assert close(after.at[4], ended(OURS[0], before.at))
    assert close(after.reference[4], mixed(after.reference[2], after.at[4]))


def ours_end_as_in_float64(callback: Callable[[], TrainerCallback], folder: Path) -> None:
    watch = WatchWhole()
    trainer = trainer_rows.train("zero3", folder, [watch, callback()], max_steps=4)
    assert close(trainer_rows.whole(trainer.model), ended(callback, watch.at))
