"""Checkpoints of one's own Trainer that changed before a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import TrainerCallback

from sfa_hf import EMACallback, SFACallback
from sfa_hf.errors import ConfigError
from sfa_hf.files.manifest import damage
from tests.tiny_training import tiny_model, train

SAVES = {"save_strategy": "steps", "save_steps": 3}


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _step_back(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "global_step": 2}))


def _from_the_start(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "global_step": 0}))


@pytest.mark.parametrize("callback", [lambda: SFACallback(beta=0.5, p=0.5), lambda: EMACallback(0.9)])
def test_a_changed_checkpoint_is_refused_by_file(tmp_path: Path, callback, caplog) -> None:
    train(tmp_path, [callback()], **SAVES)
    whole = tmp_path / "checkpoint-3"
    for name, change in (
        ("model.safetensors", _flip),
        ("trainer_state.json", _step_back),
        ("trainer_state.json", _from_the_start),
    ):
        kept = (whole / name).read_bytes()
        change(whole / name)
        with pytest.raises(ConfigError, match=rf"resume_from_checkpoint: .*{name} has") as stop:
            train(tmp_path, [callback()], tiny_model(1), resume_from_checkpoint=str(whole), **SAVES)
        assert stop.value.key == "resume_from_checkpoint"
        (whole / name).write_bytes(kept)
    train(tmp_path, [callback()], tiny_model(1), resume_from_checkpoint=str(whole), **SAVES)
    assert "manifest" not in caplog.text
    (whole / "manifest.json").unlink()
    train(tmp_path, [callback()], tiny_model(1), resume_from_checkpoint=str(whole), **SAVES)
    assert "checkpoint-3 has no manifest.json" in caplog.text


def test_a_file_that_the_trainer_could_not_read_is_named(tmp_path: Path) -> None:
    train(tmp_path, [EMACallback(0.9)], **SAVES)
    file = tmp_path / "checkpoint-3" / "model.safetensors"
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    for told in (str(file.parent), file.parent):
        with pytest.raises(ConfigError, match=r"resume_from_checkpoint: .*model\.safetensors has another"):
            train(tmp_path, [EMACallback(0.9)], resume_from_checkpoint=told, **SAVES)


class _StopsOnSave(TrainerCallback):
    """Stops the training when its checkpoint is saved, which then is saved again."""

    def on_save(self, _, __, control, **___) -> None:
        control.should_training_stop = True


def test_the_manifest_is_of_what_was_saved_last(tmp_path: Path) -> None:
    """One manifest for two callbacks, behind what each of them adds or saves again."""
    callbacks = [EMACallback(0.9), SFACallback(beta=0.5, p=1.0), _StopsOnSave()]
    train(tmp_path, callbacks, **SAVES)
    assert damage(tmp_path / "checkpoint-3") is None
    files = json.loads((tmp_path / "checkpoint-3" / "manifest.json").read_text())["files"]
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json"} <= set(files)
    assert any(name.startswith("ema/") for name in files)


def test_a_trainer_that_trains_again_checks_again(tmp_path: Path) -> None:
    trainer = train(tmp_path, [SFACallback(beta=0.5, p=0.5)], **SAVES)
    seals = [type(each).__name__ for each in trainer.callback_handler.callbacks].count("CheckpointSeal")
    assert seals == 1
    _flip(tmp_path / "checkpoint-6" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.safetensors has another content"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
