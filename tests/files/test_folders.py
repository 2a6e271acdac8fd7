"""Whole folders: seen whole or not at all, and nothing of a killed writer stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sfa_hf.files.atomic import is_leftover
from sfa_hf.files.folders import aside, new_folder, put_in_place

KILLED = """
import os, signal, sys
from pathlib import Path
from sfa_hf.files.folders import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_replaces_an_older_one_only_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    for content in ("old", "new"):
        with new_folder(final) as folder:
            (folder / content).write_text(content)
            assert is_leftover(folder)
            assert not (final / "new").exists()
    assert names(final.parent) == ["final"]
    assert names(final) == ["new"]
    assert final.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_fails_leaves_the_older_one_and_nothing_else(tmp_path: Path) -> None:
    with new_folder(tmp_path / "final") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "final"):
        raise RuntimeError
    assert names(tmp_path) == ["final"]
    assert names(tmp_path / "final") == ["old"]


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    final = tmp_path / "final"
    subprocess.run([sys.executable, "-c", KILLED, str(final)], check=False)
    (left,) = tmp_path.iterdir()
    assert is_leftover(left)
    with new_folder(final) as slow:
        (slow / "slow").write_text("slow")
        assert not left.exists()
        with new_folder(final) as quick:
            (quick / "quick").write_text("quick")
        assert names(final) == ["quick"]
        assert names(slow) == ["slow"]
    assert names(tmp_path) == ["final"]
    assert names(final) == ["slow"]


def test_ranks_agree_on_the_place_aside(tmp_path: Path) -> None:
    written = aside(tmp_path / "final")
    assert is_leftover(written)
    assert written == aside(tmp_path / "final")
    written.mkdir()
    put_in_place(written, tmp_path / "final")
    assert names(tmp_path) == ["final"]
