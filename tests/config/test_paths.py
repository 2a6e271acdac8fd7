"""Paths that a user gives, and outputs that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sfa_hf.config.paths import check_writable, expanded
from sfa_hf.errors import ConfigError


def test_a_path_is_expanded_as_a_shell_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    assert expanded("~/x") == "/home/me/x"
    assert expanded("$DATA/x") == expanded("${DATA}/x") == "/data/x"
    for plain in ("runs/x", "org/model", "builtin:pythia", "a~b", "cost$5", "", "./x/"):
        assert expanded(plain) == plain


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("~nosuchuser/x", "there is no user nosuchuser"),
        ("$NO_SUCH_VARIABLE/x", "there is no environment variable NO_SUCH_VARIABLE"),
        ("a\0b", "holds a NUL character"),
        ("x" * 5_000, "is too long for a path"),
        ("/".join(["x" * 100] * 50), "is too long for a path"),
    ],
)
def test_what_no_path_is_is_one_line(path: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        expanded(path, "output_dir")
    assert error.value.key == "output_dir"
    assert len(str(error.value)) < 400


def _file(place: Path) -> Path:
    (place / "file").write_text("")
    return place / "file"


def _loop(place: Path) -> Path:
    (place / "loop").symlink_to(place / "loop")
    return place / "loop"


def _nowhere(place: Path) -> Path:
    (place / "link").symlink_to(place / "gone")
    return place / "link"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_file, "is not a folder"),
        (lambda place: _file(place) / "run", "file is not a folder"),
        (_loop, "cannot be written"),
        (lambda place: _loop(place) / "run" / "deep", "cannot be written"),
        (_nowhere, "cannot be written"),
        (lambda place: place / ("x" * 300) / "run", "cannot be written: File name too long"),
        (lambda place: Path("/proc/nowhere/run"), "cannot be written|not writable"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(
    make: Callable[[Path], Path], told: str, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=told) as error:
        check_writable("output_dir", folder)
    assert error.value.key == "output_dir"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="is not writable"):
        check_writable("output_dir", tmp_path / "run")


def test_a_good_output_is_left_as_it_is(tmp_path: Path) -> None:
    check_writable("output_dir", tmp_path)
    check_writable("output_dir", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
