"""SIGTERM to one process of a launch: all checkpoint at the same step and end with the code that says so."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sfa_hf.config.cli import EXIT_PREEMPTED
from tests.faults.fault import Fault
from tests.faults.survive import Endurance


@pytest.mark.parametrize(
    ("engine", "rank", "step"), [pytest.param("plain", 0, 3, marks=pytest.mark.slow), ("ddp", 1, 4)]
)
def test_sigterm_while_a_task_trains(tmp_path: Path, engine: str, rank: int, step: int) -> None:
    """Several processes hear of it one step later, which is when they have agreed."""
    endurance, run = Endurance(engine, tmp_path), tmp_path / "run"
    in_step_two = Fault("1-words/checkpoint-2", rank=rank, number=signal.SIGTERM)
    assert endurance.launch(run, in_step_two) == EXIT_PREEMPTED
    line = f"stopped by SIGTERM after step {step} of 9 of task words; its checkpoint is whole"
    assert f"{line}; the same command continues" in endurance.said()
    assert (run / "1-words" / f"checkpoint-{step}" / "manifest.json").is_file()
    assert endurance.launch(run, None) == 0
    assert f"words: resuming after step {step}" in endurance.said()
    assert endurance.compare(run) == 0


@pytest.mark.slow
def test_sigterm_while_a_task_is_scored(tmp_path: Path) -> None:
    endurance, run = Endurance("plain", tmp_path), tmp_path / "run"
    scoring = Fault("records/after-1/.words", number=signal.SIGTERM)
    assert endurance.launch(run, scoring) == EXIT_PREEMPTED
    before = len(endurance.said())
    assert endurance.launch(run, None) == 0
    again = endurance.said()[before:]
    assert again.index("words: accuracy") < again.index("task 2 of 3")
    assert "sums: exact_match" not in again[: again.index("words: accuracy")]  # it was scored already
    assert endurance.compare(run) == 0
