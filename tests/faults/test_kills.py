"""Runs that are killed and continued end in the bits of one left alone. ``make faults`` kills more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.survive import Endurance


@pytest.mark.parametrize(
    ("engine", "kills"),
    [("plain", 4), *(pytest.param(e, 2, marks=pytest.mark.slow) for e in ("ddp", "zero3"))],
)
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path, engine: str, kills: int) -> None:
    outcome = Endurance(engine, tmp_path).survive(kills, seed=1)
    print(outcome)
    assert outcome.kills == kills
    assert outcome.bytes_lost == 0
