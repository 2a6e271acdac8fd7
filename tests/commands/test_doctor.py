from __future__ import annotations

from pathlib import Path

import pytest

from sfa_hf.commands import doctor
from sfa_hf.commands.engine_trials import TRIALS, problem_with_engine
from sfa_hf.commands.main import main


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "problem_with_engine", {"DDP": "no gloo"}.get)


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_it_says_what_works_and_what_to_do(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "py311_cpu" / "fused_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "deepspeed" else "1.0")
    said = _said(capsys)
    for title in ("versions", "devices", "engines", "sandbox", "configs", "room"):
        assert title in said
    assert "pip install 'sfa_hf[deepspeed]'" in said
    assert "plain works: tried on a tiny model" in said
    assert "does not work: no gloo" in said
    assert "DeepSpeed build lock" in said
    assert "sequences 7 in " in said


def test_what_is_installed_shows_its_version(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert f"torch {torch.__version__}" in _said(capsys)


@pytest.mark.parametrize("name", ["plain", "DDP", "FSDP2"])
def test_an_engine_is_really_tried(name: str) -> None:
    assert problem_with_engine(name) is None


def test_a_trial_that_fails_dies_or_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import time

    def fails() -> None:
        raise RuntimeError("no device")

    monkeypatch.setattr("sfa_hf.commands.engine_trials.SECONDS", 2.0)
    for trial, told in (
        (fails, "RuntimeError: no device"),
        (lambda: os._exit(9), "its process ended with exit code 9"),
        (lambda: time.sleep(60), "no answer within 2 s"),
    ):
        monkeypatch.setitem(TRIALS, "plain", trial)
        assert problem_with_engine("plain") == told
