from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.sequence.disk import DiskNeed, check_room, disk_need
from tests.tiny_training import arguments


def test_what_a_run_needs_is_what_it_keeps_and_what_it_writes(tmp_path: Path) -> None:
    need = disk_need(4_000_000, 4, 3, 2, arguments(tmp_path, save_strategy="steps"))
    assert need == DiskNeed(model=4_000_000, checkpoint=12_000_000, models=3, checkpoints=3)
    assert need.total == 48_000_000
    assert disk_need(4_000_000, 4, 3, 2, arguments(tmp_path)).total == 12_000_000
    half = disk_need(2_000_000, 2, 3, 2, arguments(tmp_path), statistics=3)
    assert half.total == 6_000_000 + 12_000_000
    assert "11.4 MiB of the method's own" in str(half)


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(ConfigError, match=r"output_dir: .*new.* needs about .* GiB of disk .* and has"):
        check_room(tmp_path / "new" / "folder", DiskNeed(free, 0, 2, 0))
    assert not (tmp_path / "new").exists()
    check_room(tmp_path / "new", DiskNeed(1, 1, 2, 2))
    check_room(tmp_path / "new", DiskNeed(free, 0, 2, 0), held=2 * free)  # it is there already
