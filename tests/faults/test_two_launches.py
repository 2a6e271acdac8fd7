"""The same command twice at once: one does the run, the other says who does it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests import launches
from tests.sequence.small_run import small_base, small_data, small_values


def _race(base: str, data: Path, place: Path) -> tuple[list[int], list[str], bytes]:
    """Launch one command twice; the exit codes, what each printed, and the weights of the last task."""
    place.mkdir()
    values = small_values(base, data, place / "run", steps=2)
    values["sequence"] = values["sequence"][:2]
    logs = [place / "first.log", place / "second.log"]
    function = "tests.faults.launcher:run"
    ended = launches.launch(
        function, {"values": values, "fault": None}, logs, seconds=300, together=False, distributed=False
    )
    assert not ended.hung
    weights = (place / "run" / "1-words" / "model" / "model.safetensors").read_bytes()
    return ended.codes, [log.read_text() for log in logs], weights


@pytest.mark.parametrize("races", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_one_of_two_launches_ends_as_if_alone(tmp_path: Path, races: int) -> None:
    base, data = small_base(tmp_path / "models"), small_data(tmp_path)
    alone, held = None, 0
    for number in range(races):
        codes, texts, weights = _race(base, data, tmp_path / f"race-{number}")
        refused = [text for code, text in zip(codes, texts, strict=True) if code == 2]
        assert sorted(codes) == [0, 2], texts
        lines = [line for line in refused[0].splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert "Traceback" not in refused[0]
        held += bool(
            re.search(
                rf"output_dir: .*/run is in use by process \d+ on {os.uname().nodename} since", lines[0]
            )
        )
        assert not list((tmp_path / f"race-{number}").glob(".*"))
        alone = alone or weights
        assert weights == alone
    print(f"{races} races: one launch ended in the same bits each time; {held} named the other")
    assert held == races
