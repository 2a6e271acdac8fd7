"""Checkpoints of sharded engines: sealed whole, resumed, loaded as the best; also of converted models."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from test_trainer_engines import Whole, differing
from test_trainer_refusals import refusal
from trainer_rows import ENGINES, assert_all_hold, train, whole
from transformers import AutoModelForCausalLM

from sfa_hf import EMACallback, SFACallback
from sfa_hf.distributed.processes import everyones
from sfa_hf.files.manifest import MANIFEST
from tests.hf_trainer.test_converted import gpt_neox, made, mixtral
from tests.tiny_training import tiny_model

EACH_2: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
CONVERTED = (mixtral, gpt_neox)


def loaded(folder: str | Path) -> dict[str, Any]:
    return whole(AutoModelForCausalLM.from_pretrained(folder))


def converted_models_resume_to_the_same_bits(engine: str, folder: Path) -> None:
    for make in CONVERTED:
        where, watch = folder / make.__name__, Whole()
        ended = train(engine, where, [SFACallback(0.3, 0.5)], made(make), **EACH_2)
        at_2 = str(where / "checkpoint-2")
        callbacks = [SFACallback(0.3, 0.5), watch]
        resumed = train(engine, where, callbacks, made(make, 1), resume_from_checkpoint=at_2, **EACH_2)
        assert differing(watch.at[2], loaded(at_2)) == []
        assert differing(whole(resumed.model), whole(ended.model)) == []


def the_best_of_a_converted_model_is_loaded_whole(engine: str, folder: Path) -> None:
    for make in CONVERTED:
        evaluations = itertools.count()
        trainer = train(
            engine,
            folder / make.__name__,
            [SFACallback(0.3, 0.5), EMACallback(0.5)],
            made(make),
            compute_metrics=lambda _: {"late": next(evaluations)},  # noqa: B023 - called in this turn
            eval_strategy="steps",
            eval_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="late",
            greater_is_better=False,
            **EACH_2,
        )
        best = trainer.state.best_model_checkpoint
        assert best.endswith("-2")
        assert differing(whole(trainer.model), loaded(best)) == []


def a_converted_models_folder_is_the_anchor(engine: str, folder: Path) -> None:
    for make in CONVERTED:
        place, anchor = folder / make.__name__ / "anchor", made(make, 3)
        if os.environ["RANK"] == "0":
            anchor.save_pretrained(place)
        PartialState().wait_for_everyone()
        trainer = train(engine, folder, [SFACallback(1.0, 1.0, anchor=place)], made(make), max_steps=2)
        assert differing(whole(trainer.model), loaded(place)) == []


def a_flipped_bit_in_any_file_is_named_by_all(engine: str, folder: Path) -> None:
    options = {**EACH_2, "max_steps": 2}
    if engine == "fsdp2":
        options["fsdp_config"] = {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
    train(engine, folder, [SFACallback(0.3, 0.5), EMACallback(0.5)], **options)
    checkpoint = folder / "checkpoint-2"
    files = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert set(json.loads((checkpoint / MANIFEST).read_text())["files"]) == files - {MANIFEST}
    theirs = {"zero2": "zero_pp_rank_1_", "zero3": "zero_pp_rank_1_", "fsdp2": "__1_0.distcp"}
    own = [name for name in sorted(files) if theirs[engine] in name or name == "rng_state_1.pth"]
    assert len(own) > 1, files
    for name in own:
        kept = (checkpoint / name).read_bytes()
        _flip(checkpoint / name)
        for callback in (SFACallback(0.3, 0.5), EMACallback(0.5)):
            line = refusal(
                engine, folder, [callback], tiny_model(1), resume_from_checkpoint=str(checkpoint), **options
            )
            assert line.startswith("resume_from_checkpoint: "), line
            assert f"{Path(name).name} has another content" in line
        _write(checkpoint / name, kept)
    options["max_steps"] = 4
    watch, callbacks = Whole(), [SFACallback(0.3, merge_every=2), EMACallback(0.5)]
    train(
        engine, folder, [*callbacks, watch], tiny_model(1), resume_from_checkpoint=str(checkpoint), **options
    )
    assert set(watch.at) == {2, 3, 4}


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    _write(file, bytes(data))


def _write(file: Path, data: bytes) -> None:
    everyones(None)
    if os.environ["RANK"] == "0":
        file.write_bytes(data)
    everyones(None)


def hosts_without_a_shared_disk_write_no_manifest(engine: str, folder: Path) -> None:
    own = folder / os.environ["RANK"]
    train(engine, own, [SFACallback(save_anchor=False)], **{**EACH_2, "max_steps": 2})
    assert (own / "checkpoint-2").is_dir()
    assert not (own / "checkpoint-2" / MANIFEST).exists()


TABLE = (
    converted_models_resume_to_the_same_bits,
    the_best_of_a_converted_model_is_loaded_whole,
    a_converted_models_folder_is_the_anchor,
    a_flipped_bit_in_any_file_is_named_by_all,
    hosts_without_a_shared_disk_write_no_manifest,
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_checkpoints_of_two_processes(engine: str, tmp_path: Path) -> None:
    assert_all_hold(TABLE, engine, tmp_path)


def test_a_flipped_bit_is_named_by_all(tmp_path: Path) -> None:
    assert_all_hold([a_flipped_bit_in_any_file_is_named_by_all], "fsdp2", tmp_path)
