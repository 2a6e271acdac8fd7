"""A resumed training ends in the weights of one that never stopped, with the anchor that it began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Trainer, TrainerCallback

from sfa_hf import SecondMomentsCallback, SFACallback
from sfa_hf.engines import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.moments.folder import MomentFolder
from tests.tiny_training import VOCABULARY, tiny_model, train, weights

CHECKPOINTS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}


def merges(trainer: Trainer) -> list[tuple[int, int]]:
    return [(row["step"], row["sfa/merge"]) for row in trainer.state.log_history if "sfa/merge" in row]


def assert_same(trainer: Trainer, whole: Trainer) -> None:
    expected = weights(whole.model)
    assert all(expected[name].equal(weight) for name, weight in weights(trainer.model).items())
    assert merges(trainer) == merges(whole) == [(2, 1), (4, 2), (6, 3), (8, 4)]


def resume(folder: Path, callback: SFACallback, **options: Any) -> Trainer:
    """Resume at step 5 with a model that has other weights, as a script that builds it again would."""
    checkpoint = str(folder / "checkpoint-5")
    return train(
        folder,
        [callback],
        model=tiny_model(seed=1),
        resume_from_checkpoint=checkpoint,
        **CHECKPOINTS,
        **options,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"anchor_device": "disk"},
        {"anchor_device": "disk", "anchor_dtype": "bfloat16"},
        {"exclude": "embed"},
        {"optimizer_state": "reset"},
    ],
    ids=str,
)
def test_the_start_weights_are_kept_for_a_resume(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = train(tmp_path, [SFACallback(**options)], **CHECKPOINTS)
    assert_same(resume(tmp_path, SFACallback(**options)), whole)
    (kept,) = (tmp_path / "_sfa_anchor").iterdir()
    assert [file.name for file in kept.iterdir()] == ["00000-of-00001.safetensors"]


def test_the_start_weights_are_named_as_the_model_names_them(tmp_path: Path) -> None:
    model = tiny_model()
    start = weights(model)
    train(tmp_path, [SFACallback()], model=model, **CHECKPOINTS)
    (file,) = tmp_path.glob("_sfa_anchor/*/*.safetensors")
    with safe_open(file, framework="pt") as kept:
        assert all(kept.get_tensor(name).equal(value.flatten()) for name, value in start.items())


def test_nothing_is_kept_where_nothing_can_resume(tmp_path: Path) -> None:
    train(tmp_path, [SFACallback()])
    assert not (tmp_path / "_sfa_anchor").exists()


def test_an_anchor_that_was_named_is_read_again(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "start")
    whole = train(tmp_path, [SFACallback(anchor=tmp_path / "start")], model=model, **CHECKPOINTS)
    assert not (tmp_path / "_sfa_anchor").exists()
    assert_same(resume(tmp_path, SFACallback(anchor=str(tmp_path / "start"))), whole)


def test_an_anchor_moved_elsewhere_is_the_same_anchor(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "start", max_shard_size="8KB")
    whole = train(tmp_path, [SFACallback(anchor=tmp_path / "start")], model=model, **CHECKPOINTS)
    tiny_model().save_pretrained(tmp_path / "moved")
    assert_same(resume(tmp_path, SFACallback(anchor=tmp_path / "moved")), whole)


def refusals(folder: Path) -> dict[str, tuple[SFACallback, str]]:
    return {
        "another model": (SFACallback(anchor=folder / "other"), "anchor: .*other.* is not the anchor that"),
        "none instead": (SFACallback(), "anchor: None, but this training began with .*start"),
        "another dtype": (
            SFACallback(anchor=folder / "start", anchor_dtype="bfloat16"),
            "anchor_dtype: .*float32",
        ),
    }


@pytest.mark.parametrize("case", ["another model", "none instead", "another dtype"])
def test_another_anchor_is_refused(tmp_path: Path, case: str) -> None:
    tiny_model().save_pretrained(tmp_path / "start")
    tiny_model(seed=3).save_pretrained(tmp_path / "other")
    train(tmp_path, [SFACallback(anchor=tmp_path / "start")], **CHECKPOINTS)
    callback, line = refusals(tmp_path)[case]
    with pytest.raises(ConfigError, match=line):
        resume(tmp_path, callback)


def test_an_anchor_changed_in_place_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "start")
    train(tmp_path, [SFACallback(anchor=tmp_path / "start")], **CHECKPOINTS)
    file = tmp_path / "start" / "model.safetensors"
    flip_last_byte(file)
    with pytest.raises(ConfigError, match="is not the anchor that this training began with"):
        resume(tmp_path, SFACallback(anchor=tmp_path / "start"))


def flip_last_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


DAMAGE = {
    "flipped": (flip_last_byte, "is not the anchor that"),
    "cut short": (truncate, "is damaged"),
    "empty": (lambda file: file.write_bytes(b""), "is damaged"),
    "gone": (lambda file: file.unlink(), "does not hold all of"),
    "folder gone": (lambda file: shutil.rmtree(file.parent), "start weights of this training are not in"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_start_weights_are_refused(tmp_path: Path, damage: str) -> None:
    train(tmp_path, [SFACallback()], **CHECKPOINTS)
    break_file, line = DAMAGE[damage]
    break_file(next(tmp_path.glob("_sfa_anchor/*/*.safetensors")))
    with pytest.raises(ConfigError, match=f"anchor: .*{line}"):
        resume(tmp_path, SFACallback())


def test_start_weights_that_were_not_saved_refuse_the_resume(tmp_path: Path) -> None:
    train(tmp_path, [SFACallback(save_anchor=False)], **CHECKPOINTS)
    assert not (tmp_path / "_sfa_anchor").exists()
    with pytest.raises(ConfigError, match="start weights of this training are not in"):
        resume(tmp_path, SFACallback())


def test_a_checkpoint_of_a_training_without_an_anchor(tmp_path: Path, caplog) -> None:
    train(tmp_path, [], **CHECKPOINTS)
    tiny_model().save_pretrained(tmp_path / "start")
    with pytest.raises(ConfigError, match=r"anchor: training resumes from .*checkpoint-5"):
        resume(tmp_path, SFACallback())
    resume(tmp_path, SFACallback(anchor=tmp_path / "start"))
    assert "on trust" in caplog.text
    saved = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["SFACallback"]["attributes"]["anchor_record"]["fingerprint"]


def tiny_neox(seed: int) -> GPTNeoXForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **sizes))


def test_tensors_that_the_trainer_does_not_find_in_a_checkpoint_are_loaded(tmp_path: Path, caplog) -> None:
    """GPT-NeoX's output head is ``embed_out`` in files and ``lm_head`` in memory."""
    whole = train(tmp_path, [SFACallback()], model=tiny_neox(0), **CHECKPOINTS)
    checkpoint = str(tmp_path / "checkpoint-5")
    resumed = train(
        tmp_path, [SFACallback()], model=tiny_neox(1), resume_from_checkpoint=checkpoint, **CHECKPOINTS
    )
    assert_same(resumed, whole)
    assert "the Trainer did not load lm_head.weight" in caplog.text


def test_so_are_they_where_only_second_moments_are_left(tmp_path: Path) -> None:
    whole = train(tmp_path, [SecondMomentsCallback()], model=tiny_neox(0), **CHECKPOINTS)
    expected = read_moments(tmp_path, whole)
    again = {**CHECKPOINTS, "resume_from_checkpoint": str(tmp_path / "checkpoint-5")}
    resumed = train(tmp_path, [SecondMomentsCallback()], model=tiny_neox(1), **again)
    kept = weights(whole.model)
    assert all(value.equal(kept[name]) for name, value in weights(resumed.model).items())
    assert all(value.equal(expected[name]) for name, value in read_moments(tmp_path, resumed).items())


def read_moments(folder: Path, trainer: Trainer) -> dict[str, torch.Tensor]:
    kept = MomentFolder(folder / "_second_moments")
    return {name: kept.read(Shard(name, p.data.view(-1), 0, p.shape)) for name, p in named(trainer)}


def named(trainer: Trainer) -> list[tuple[str, torch.nn.Parameter]]:
    return list(trainer.model.named_parameters())


@pytest.mark.parametrize("callback", [SFACallback(0.5, 0.5), SecondMomentsCallback()])
def test_so_are_they_where_the_best_checkpoint_is_loaded_at_the_end(
    tmp_path: Path, callback: TrainerCallback
) -> None:
    every = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    trainer = train(tmp_path, [callback], model=tiny_neox(0), **every, **best)
    assert trainer.state.best_model_checkpoint is not None
    assert not trainer.state.best_model_checkpoint.endswith("-8")  # the loss falls: it is not the last
    kept = weights(GPTNeoXForCausalLM.from_pretrained(trainer.state.best_model_checkpoint))
    assert all(value.equal(kept[name]) for name, value in weights(trainer.model).items())


def test_two_callbacks_of_one_training_each_keep_their_anchor(tmp_path: Path) -> None:
    def callbacks() -> list[TrainerCallback]:
        return [SFACallback(0.5, include="lm_head"), SFACallback(0.1, exclude="lm_head")]

    whole = train(tmp_path, callbacks(), **CHECKPOINTS)
    resumed = train(
        tmp_path, callbacks(), resume_from_checkpoint=str(tmp_path / "checkpoint-5"), **CHECKPOINTS
    )
    expected = weights(whole.model)
    assert all(expected[name].equal(weight) for name, weight in weights(resumed.model).items())


def test_the_callback_can_be_rebuilt_from_a_checkpoint(tmp_path: Path) -> None:
    whole = train(tmp_path, [SFACallback(0.3)], **CHECKPOINTS)
    assert_same(resume(tmp_path, SFACallback(0.9), restore_callback_states_from_checkpoint=True), whole)
