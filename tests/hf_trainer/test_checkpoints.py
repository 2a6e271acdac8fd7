from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.files.manifest import seal
from sfa_hf.hf_trainer.checkpoints import Checkpoint, check_resumable, newest_whole
from sfa_hf.sequence.run_names import task_names

NAMES = task_names({"name": "sfa"})
FACTS: dict[str, Any] = {"rows": "abc", "zero": 2, "processes": 2, "samples": 8}


def written(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "global_step").mkdir(parents=True)
    (path / "global_step" / "shard.pt").write_bytes(bytes(range(step)))
    if whole:
        seal(path, {**FACTS, "seconds": float(step)})
    return path


def test_the_newest_whole_one_is_found_and_the_rest_goes(tmp_path: Path, caplog) -> None:
    written(tmp_path, 9)
    (written(tmp_path, 100) / "global_step" / "shard.pt").write_bytes(b"shorter")
    written(tmp_path, 110, whole=False)
    (tmp_path / ".model.tmp").mkdir()
    (tmp_path / "notes.txt").write_text("a user's")
    kept = written(tmp_path, 20)
    found = newest_whole(tmp_path, NAMES)
    assert found == Checkpoint(20, kept, {**FACTS, "seconds": 20.0})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-20", "checkpoint-9", "notes.txt"]
    assert "checkpoint-110: its manifest.json is missing" in caplog.text
    assert "checkpoint-100: shard.pt has 7 bytes instead of 100" in caplog.text


def test_a_folder_without_one_is_made_empty(tmp_path: Path) -> None:
    written(tmp_path, 3, whole=False)
    assert newest_whole(tmp_path, NAMES) is None
    assert list(tmp_path.iterdir()) == []
    assert newest_whole(tmp_path / "new", NAMES) is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"rows": "abd"}, "sequence: the training rows are not those"),
        ({"processes": 3}, r"training\.deepspeed: .* 2 processes with ZeRO-2, this launch is 3 processes"),
        ({"zero": 3}, r"training\.deepspeed: .* with ZeRO-2, this launch is 2 processes with ZeRO-3"),
        ({"zero": 0}, r"training\.deepspeed: .* this launch is 2 processes with no ZeRO partitioning"),
        ({"samples": 12}, r"training\.per_device_train_batch_size: .* 8 samples a step, this launch 12"),
    ],
)
def test_what_would_end_otherwise_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        check_resumable(Checkpoint(4, Path("checkpoint-4"), FACTS), {**FACTS, **changes})


def test_another_number_of_replicas_goes_on_with_a_warning(caplog) -> None:
    replicas = {**FACTS, "zero": 0}
    check_resumable(Checkpoint(4, Path("checkpoint-4"), replicas), {**replicas, "processes": 1})
    assert "1 processes continue what 2 began" in caplog.text
