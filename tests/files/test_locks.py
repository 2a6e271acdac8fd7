"""Locks between real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sfa_hf.files.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from sfa_hf.files.locks import locked
with locked(Path(sys.argv[1])) as holder:
    print(holder, flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "None\n"
    return process


def test_a_lock_names_its_owner_and_dies_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    process = hold(folder)
    try:
        (tmp_path / "other").symlink_to(tmp_path / "new")
        for name in (folder, tmp_path / "other" / "run"):
            with locked(name) as holder:
                assert holder is not None
                assert re.fullmatch(rf"process {process.pid} on \S+ since \d{{4}}-\S+", holder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(folder) as holder:
        assert holder is None
    assert list((tmp_path / "new").iterdir()) == []


def test_what_was_made_for_a_lock_goes_with_it(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "run") as holder:
        assert holder is None
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [".run.lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with locked(tmp_path / "run"):
        child = os.fork()
        if child == 0:  # lives until the test is done
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with locked(tmp_path / "run") as holder:
        assert holder is None
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


def test_a_folder_beside_which_nothing_can_be_written_is_locked_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    with locked(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list(folder.iterdir()) == []
