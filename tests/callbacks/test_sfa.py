"""SFACallback on one process, in real trainings: what is merged, when, and who sees it."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import BeforeAndAfter, Odd, Watch, arguments, rows, tiny_model, train, weights, worst_ulp
from transformers import LlamaForCausalLM, Trainer, TrainerCallback

from sfa_hf import SFACallback
from sfa_hf.errors import ConfigError

HALF_AN_ULP = 0.5 + 1e-6  # the reference is itself rounded, in float64


def watched(folder: Path, callback: SFACallback, **changes: object) -> tuple[Trainer, Watch, Watch]:
    before, after = Watch(), BeforeAndAfter()
    return train(folder, [before, callback, after], **changes), before, after


def changed_steps(before: Watch, after: Watch) -> list[int]:
    return [
        step for step in before.at if any(not before.at[step][n].equal(w) for n, w in after.at[step].items())
    ]


def merges(trainer: Trainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "sfa/merge" in entry]


def test_the_readme_lines_merge_four_times(tmp_path: Path) -> None:
    model, args = tiny_model(), arguments(tmp_path, max_steps=8)
    trainer = Trainer(model, args, train_dataset=rows(), callbacks=[SFACallback(beta=0.5, p=0.25)])
    trainer.train()
    assert [entry["step"] for entry in merges(trainer)] == [2, 4, 6, 8]


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("anchor_device", ["cpu", "disk", "device"])
def test_each_merge_is_the_average_in_float64_to_half_an_ulp(
    tmp_path: Path, beta: float, anchor_device: str
) -> None:
    callback = SFACallback(beta, 0.25, anchor_device=anchor_device)
    _, before, after = watched(tmp_path, callback)
    for step in (2, 4, 6, 8):
        for name, theta_o in before.at[0].items():
            assert worst_ulp(before.at[step][name], theta_o, after.at[step][name], beta) <= HALF_AN_ULP
    assert changed_steps(before, after) == ([] if beta == 0 else [2, 4, 6, 8])


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [2, 4, 5, 7]),
        ({"p": 1.0}, [7]),
        ({"p": 0.4}, [3, 6, 7]),
        ({"p": 0.001}, [1, 2, 3, 4, 5, 6, 7]),
        ({"merge_every": 5}, [5, 7]),
        ({"merge_every": 7}, [7]),
        ({"merge_every": 100}, [7]),
    ],
)
def test_weights_change_at_merge_steps_alone(tmp_path: Path, options: dict, steps: list[int]) -> None:
    trainer, before, after = watched(tmp_path, SFACallback(**options), max_steps=7)
    assert changed_steps(before, after) == steps
    assert [entry["step"] for entry in merges(trainer)] == steps
    assert [entry["sfa/merge"] for entry in merges(trainer)] == list(range(1, len(steps) + 1))


def test_the_next_step_starts_from_the_merged_weights(tmp_path: Path) -> None:
    _, before, after = watched(tmp_path, SFACallback(merge_every=3), max_steps=4, learning_rate=0.0)
    assert all(before.at[4][name].equal(merged) for name, merged in after.at[3].items())


def test_training_in_epochs_merges_at_the_end(tmp_path: Path) -> None:
    trainer, *_ = watched(tmp_path, SFACallback(p=0.5), max_steps=-1, num_train_epochs=2)
    assert [entry["step"] for entry in merges(trainer)] == [16, 32]


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(("stop", "steps"), [(5, [4, 5]), (4, [4])])
def test_a_training_stopped_early_ends_with_a_merge(tmp_path: Path, stop: int, steps: list[int]) -> None:
    trainer = train(tmp_path, [SFACallback(merge_every=4), StopAt(stop)], max_steps=12)
    assert trainer.state.global_step == stop
    assert [entry["step"] for entry in merges(trainer)] == steps


def test_evaluation_checkpoint_and_final_save_hold_the_merged_weights(tmp_path: Path) -> None:
    changes = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trainer, before, after = watched(tmp_path, SFACallback(p=0.5), **changes)
    trainer.save_model(str(tmp_path / "final"))
    losses = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    for step, folder in ((4, "checkpoint-4"), (8, "checkpoint-8"), (8, "final")):
        saved = load_file(tmp_path / folder / "model.safetensors")
        assert all(saved[name].equal(merged) for name, merged in after.at[step].items())
        assert not all(saved[name].equal(unmerged) for name, unmerged in before.at[step].items())
        again = Trainer(LlamaForCausalLM.from_pretrained(tmp_path / folder), arguments(tmp_path / "again"))
        assert again.evaluate(rows(8, seed=2))["eval_loss"] == pytest.approx(losses[step], rel=1e-6)


def test_the_log_record_tells_the_drift_in_history_and_on_tensorboard(tmp_path: Path) -> None:
    trainer, before, after = watched(
        tmp_path, SFACallback(0.25, 0.5), report_to=["tensorboard"], logging_steps=3
    )
    for entry in merges(trainer):
        for key, watch in (("sfa/drift_before", before), ("sfa/drift_after", after)):
            drift = [
                watch.at[entry["step"]][name].double() - theta_o for name, theta_o in before.at[0].items()
            ]
            squared = sum(part.square().sum().item() for part in drift)
            assert entry[key] == pytest.approx(squared**0.5, rel=1e-6)
        assert entry["sfa/beta"] == 0.25
        assert entry["sfa/bytes"] == 4 * sum(theta_o.numel() for theta_o in before.at[0].values())
        assert entry["sfa/seconds"] > 0
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [3, 6]
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.*")).parent))
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("train/sfa/drift_after")]
    assert logged == [(e["step"], pytest.approx(e["sfa/drift_after"], rel=1e-6)) for e in merges(trainer)]


def test_frozen_tied_scalar_empty_and_odd_parameters(tmp_path: Path) -> None:
    model = Odd()
    start = copy.deepcopy(model)
    trainer, before, after = watched(tmp_path, SFACallback(0.3, 1.0), model=model)
    assert merges(trainer)
    assert model.frozen.equal(start.frozen)
    assert model.head.weight is model.embed.weight
    for name, theta_o in before.at[0].items():
        assert worst_ulp(before.at[8][name], theta_o, after.at[8][name], 0.3) <= 1
    assert set(after.at[8]) == {"embed.weight", "scale", "empty", "unused"}


def test_only_included_parameters_are_merged(tmp_path: Path) -> None:
    callback = SFACallback(p=1.0, include=r"\.layers\.", exclude="norm")
    _, before, after = watched(tmp_path, callback)
    merged = {name for name, weight in after.at[8].items() if not weight.equal(before.at[8][name])}
    assert merged == {name for name in after.at[8] if ".layers." in name and "norm" not in name}


@pytest.mark.parametrize(("policy", "factor"), [("keep", 1.0), ("reset", 0.0), ("scale", 0.75)])
def test_moments_are_kept_reset_or_scaled(tmp_path: Path, policy: str, factor: float) -> None:
    moments: list[list[torch.Tensor]] = []

    class Moments(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs) -> None:
            moments.append(
                [s[key].clone() for s in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
            )

    class MomentsAfter(Moments):
        pass

    train(tmp_path, [Moments(), SFACallback(0.25, 1.0, optimizer_state=policy), MomentsAfter()], max_steps=3)
    before, after = moments[-2:]
    assert any(moment.abs().max() > 0 for moment in before)
    assert all(new.equal(old * factor) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("kind", "options", "keys"),
    [
        (torch.optim.Adamax, {}, ["exp_avg", "exp_inf"]),
        (torch.optim.AdamW, {"amsgrad": True}, ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
    ],
)
def test_all_moments_that_an_optimizer_keeps_are_reset(
    tmp_path: Path, kind: type[torch.optim.Optimizer], options: dict[str, Any], keys: list[str]
) -> None:
    model = tiny_model()
    optimizer = kind(model.parameters(), 1e-2, **options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(
        model,
        arguments(tmp_path, max_steps=2),
        train_dataset=rows(),
        optimizers=(optimizer, schedule),
        callbacks=[SFACallback(0.25, 1.0, optimizer_state="reset")],
    )
    trainer.train()
    tensors = {key for state in optimizer.state.values() for key, value in state.items() if value.ndim}
    assert tensors == set(keys)
    assert not any(state[key].any() for state in optimizer.state.values() for key in keys)


@pytest.mark.parametrize("policy", ["reset", "scale"])
def test_moments_that_are_not_there_are_refused_before_a_step(tmp_path: Path, policy: str) -> None:
    model = tiny_model()
    start = weights(model)
    with pytest.raises(
        NotImplementedError,
        match=r"moments of torch\.optim\.sgd\.SGD cannot be changed",
    ):
        train(tmp_path, [SFACallback(optimizer_state=policy)], model=model, optim="sgd")
    assert all(weights(model)[name].equal(weight) for name, weight in start.items())


def test_bfloat16_weights_move_on_average_as_far_as_the_merge_says(tmp_path: Path, caplog) -> None:
    class Nudge(TrainerCallback):
        """Sets weights one bfloat16 ulp from the anchor: a quarter of it, rounded, is none."""

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
            with torch.no_grad():
                model.lm_head.weight.fill_(1.0078125)

    model = tiny_model().bfloat16()
    model.lm_head.weight.data.fill_(1.0)
    logging.getLogger("sfa_hf").propagate = True
    watch = Watch()
    changes = {"max_steps": 1, "learning_rate": 0.0}
    train(tmp_path, [Nudge(), SFACallback(0.25), watch], model=model, **changes)
    merged = watch.at[1]["lm_head.weight"].float()
    assert set(merged.unique().tolist()) == {1.0, 1.0078125}
    assert merged.mean().item() == pytest.approx(1 + 0.75 * 0.0078125, abs=0.0005)
    assert sum("no fp32 master" in record.message for record in caplog.records) == 1


def test_bfloat16_merges_are_the_same_on_every_run(tmp_path: Path) -> None:
    first, second = (
        train(tmp_path, [SFACallback(0.3)], model=tiny_model().bfloat16()).model for _ in range(2)
    )
    assert all(weights(first)[name].equal(weight) for name, weight in weights(second).items())


def test_lora_factors_merges_the_factors_alone_and_says_so(tmp_path: Path, caplog) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny_model(), config)
    _, before, after = watched(tmp_path, SFACallback(0.5, 1.0, lora="factors"), model=model)
    assert all("lora_" in name for name in after.at[8])
    for name, theta_o in before.at[0].items():
        assert worst_ulp(before.at[8][name], theta_o, after.at[8][name], 0.5) <= 1
    assert any("average of A and of B" in record.message for record in caplog.records)


def test_two_trainings_with_one_callback_take_two_anchors(tmp_path: Path) -> None:
    callback, model = SFACallback(1.0, 1.0), tiny_model()
    train(tmp_path, [callback], model=model)
    first = weights(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    train(tmp_path, [callback], model=model)
    assert weights(model)["lm_head.weight"].equal(first["lm_head.weight"] + 1)


def test_the_disk_anchor_is_a_safetensors_file_gone_when_training_ends(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            (file,) = tmp_path.rglob("in-use-*")
            seen.append(load_file(file))

    model = tiny_model()
    start = weights(model)
    train(tmp_path, [SFACallback(anchor_device="disk"), Look()], model=model)
    assert all(anchor[name].equal(start[name].flatten()) for anchor in seen for name in start)
    assert not list(tmp_path.rglob("*sfa_anchor*"))


def test_a_bfloat16_anchor_is_the_start_rounded(tmp_path: Path) -> None:
    _, before, after = watched(tmp_path, SFACallback(0.4, 1.0, anchor_dtype="bfloat16"))
    for name, start in before.at[0].items():
        assert worst_ulp(before.at[8][name], start.bfloat16().float(), after.at[8][name], 0.4) <= 1


NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"beta": 1.5}, "beta: 1.5 is not"),
        ({"beta": -0.1}, "beta: -0.1 is not"),
        ({"beta": NAN}, "beta: nan is not"),
        ({"beta": "0.5"}, "beta: '0.5' is not"),
        ({"beta": True}, "beta: True is not"),
        ({"p": 0}, "p: 0 is not"),
        ({"p": 1.01}, "p: 1.01 is not"),
        ({"p": NAN}, "p: nan is not"),
        ({"merge_every": 0}, "merge_every: 0 is not"),
        ({"merge_every": 2.5}, "merge_every: 2.5 is not"),
        ({"merge_every": 10, "p": 0.5}, "merge_every: 10 beside p = 0.5"),
        ({"anchor_device": "gpu"}, "anchor_device: unknown value 'gpu'"),
        ({"anchor_dtype": "float16"}, "anchor_dtype: unknown value 'float16' .*'bfloat16|float32'"),
        ({"rule": "averag"}, "rule: unknown value 'averag' .*did you mean 'average'"),
        ({"optimizer_state": None}, "optimizer_state: unknown value None"),
        ({"include": "("}, "include: '\\(' is not a regular expression"),
        ({"exclude": 3}, "exclude: 3 is not text"),
    ],
)
def test_a_wrong_argument_is_named_at_construction(options: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        SFACallback(**options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"include": "no such name"},
            "include: include='no such name'.*names like model.embed_tokens.weight",
        ),
        ({"exclude": ""}, "exclude: include=None, exclude='' leave no trainable parameter"),
        ({"anchor": "/no/such/folder"}, "anchor: /no/such/folder is not a folder"),
    ],
)
def test_a_wrong_argument_is_named_when_training_begins(tmp_path: Path, options: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        train(tmp_path, [SFACallback(**options)])
