"""Damaged files of a run folder: recovered from, or refused in one line; never silently other weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from sfa_hf.errors import ConfigError
from sfa_hf.sequence import make_config, run_sequence
from tests.faults.fault import Fault
from tests.faults.launcher import launch
from tests.sequence.small_run import small_base, small_data, small_values

STEPS = 9


class Scene(NamedTuple):
    """A run that was killed in its last task, while the checkpoint of step 6 was written; and a whole one."""

    base: str
    data: Path
    killed: Path
    whole: Path

    def values(self, folder: Path) -> dict[str, Any]:
        values = small_values(self.base, self.data, folder, STEPS)
        values["training"] |= {"save_strategy": "steps", "save_steps": 2}
        return values

    def run(self, folder: Path) -> Path:
        return run_sequence(make_config(self.values(folder)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the launched processes: sums over two threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scene(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    base, data = small_base(folder / "models"), small_data(folder)
    made = Scene(base, data, folder / "killed", folder / "whole")
    made.run(made.whole)

    killed = made.values(made.killed)
    (code,) = launch(killed, 1, folder / "log", Fault("2-signs/checkpoint-6/.manifest"), 120)
    assert code == -9, (folder / "log").read_text()
    assert names(made.killed / "2-signs") == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def remove(file: Path) -> None:
    file.unlink()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut short": cut_short,
    "a bit flipped": flip_a_bit,
    "empty": empty,
    "gone": remove,
}
FILES = [
    "config.yaml",
    "state.json",
    "state.previous.json",
    "results.json",
    "report.html",
    "records/after-2/words.jsonl",
    "0-sums/model/model.safetensors",
    "1-words/model/model.safetensors",
    "1-words/model/tokenizer.json",
    "1-words/model/config.json",
    "1-words/model/manifest.json",
    "2-signs/checkpoint-4/model.safetensors",
    "2-signs/checkpoint-4/optimizer.pt",
    "2-signs/checkpoint-4/scheduler.pt",
    "2-signs/checkpoint-4/rng_state.pth",
    "2-signs/checkpoint-4/trainer_state.json",
    "2-signs/checkpoint-4/tokenizer.json",
    "2-signs/checkpoint-4/manifest.json",
    "2-signs/checkpoint-6/model.safetensors",
]
IN_EVERY_TEST_RUN = {
    ("a bit flipped", "state.json"),
    ("a bit flipped", "1-words/model/model.safetensors"),
    ("a bit flipped", "2-signs/checkpoint-4/optimizer.pt"),
    ("cut short", "2-signs/checkpoint-4/model.safetensors"),
    ("gone", "1-words/model/tokenizer.json"),
    ("empty", "2-signs/checkpoint-4/manifest.json"),
}
CASES = [
    pytest.param(damage, file, marks=[] if (damage, file) in IN_EVERY_TEST_RUN else pytest.mark.slow)
    for damage in DAMAGES
    for file in FILES
]


@pytest.mark.parametrize(("damage", "file"), CASES)
def test_a_damaged_file_is_recovered_from_or_refused(
    scene: Scene, tmp_path: Path, damage: str, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(scene.killed, run)
    DAMAGES[damage](run / file)
    if refusal := refused(scene, run):
        print(f"{file}, {damage}: refused: {refusal}")
        assert Path(file).name in refusal or str(run) in refusal
        return
    warned = [record.getMessage() for record in caplog.records if str(run) in record.getMessage()]
    print(f"{file}, {damage}: recovered; {[text for text in warned if 'skipping' in text]}")
    assert same(run, scene.whole)


def refused(scene: Scene, run: Path) -> str:
    try:
        scene.run(run)
    except ConfigError as error:
        return str(error)
    return ""


def same(run: Path, whole: Path) -> bool:
    scores = [json.loads((folder / "results.json").read_text())["scores"] for folder in (run, whole)]
    files = [file.relative_to(whole) for file in whole.glob("*/model/*.safetensors")]
    equal = [(run / file).read_bytes() == (whole / file).read_bytes() for file in files]
    return scores[0] == scores[1] and len(equal) == 3 and all(equal)


def test_a_damaged_model_of_a_finished_run_is_told(scene: Scene, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scene.whole, run)
    flip_a_bit(run / "0-sums/model/model.safetensors")
    with pytest.raises(ConfigError, match=r"0-sums/model: model\.safetensors has another content"):
        scene.run(run)


def test_damaged_results_of_a_finished_run_are_written_again(scene: Scene, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scene.whole, run)
    flip_a_bit(run / "results.json")
    scene.run(run)
    assert same(run, scene.whole)


def test_other_training_rows_are_refused(scene: Scene, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scene.killed, run)
    rows = (scene.data / "signs.jsonl").read_text()
    (scene.data / "signs.jsonl").write_text(rows.replace(" 4", " 5", 1))
    try:
        with pytest.raises(ConfigError, match=r"sequence\.signs\.train\.0: signs\.jsonl yields other rows"):
            scene.run(run)
    finally:
        (scene.data / "signs.jsonl").write_text(rows)
