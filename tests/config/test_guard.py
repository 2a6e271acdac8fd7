"""The last guard: what nobody foresaw is one line too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sfa_hf.config.cli import guard
from sfa_hf.errors import ConfigError, Diverged, Preempted


def _raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            ConfigError("beta", "is 2", "a number\nfrom 0 to 1"),
            2,
            "error: beta: is 2 (a number from 0 to 1)\n",
        ),
        (NotImplementedError("LOMO"), 2, "error: LOMO\n"),
        (
            Diverged(7, "NaN", "law"),
            65,
            "error: training diverged at step 7 of task law: NaN; no such weights",
        ),
        (Preempted("stopped"), 75, "stopped; the same command continues\n"),
        (OSError(28, "No space left on device", "x"), 74, "error: x: No space left on device; the same"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_each_end_has_its_line_and_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        guard(lambda: _raises(error))
    assert end.value.code == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_an_unforeseen_error_is_one_line_that_names_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        guard(lambda: _raises(KeyError("a\nb")))
    assert end.value.code == 70
    err = capsys.readouterr().err
    found = re.fullmatch(r"error: unexpected: KeyError: .* \(traceback in (\S+); please report it\)\n", err)
    assert found is not None
    text = Path(found[1]).read_text()
    assert "Traceback (most recent call last)" in text
    assert "in _raises" in text


def test_the_traceback_is_shown_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFA_HF_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        guard(lambda: _raises(KeyError("a")))
    assert "in _raises" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_say_it_once(tmp_path: Path) -> None:
    program = "from sfa_hf.config.cli import guard\ndef f(): raise KeyError('x')\nguard(f)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "3", "TMPDIR": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    said = [each.communicate(timeout=120)[1] for each in started]
    assert [each.returncode for each in started] == [70, 70, 70]
    assert len([text for text in said if text]) == 1
    assert len(list(tmp_path.iterdir())) == 1
