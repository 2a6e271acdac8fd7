"""A disk that fills up while something is written: one line, nothing lost, and the run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfa_hf.config.cli import EXIT_BAD_INPUT, EXIT_NO_ROOM
from tests.faults.fault import MOMENTS, Fault
from tests.faults.survive import Endurance


@pytest.fixture(scope="module")
def endurance(tmp_path_factory: pytest.TempPathFactory) -> Endurance:
    return Endurance("plain", tmp_path_factory.mktemp("disk"))


@pytest.mark.parametrize(
    ("moment", "count"), [("anchor", 1), ("checkpoint", 1), ("checkpoint", 9), ("model", 1), ("state", 5)]
)
def test_a_full_disk_is_one_line_and_room_is_enough_to_go_on(
    endurance: Endurance, tmp_path: Path, moment: str, count: int
) -> None:
    check(endurance, tmp_path, moment, count)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("count", [2, 4])
def test_a_full_disk_at_any_moment(endurance: Endurance, tmp_path: Path, moment: str, count: int) -> None:
    check(endurance, tmp_path, moment, count)


def check(endurance: Endurance, tmp_path: Path, moment: str, count: int) -> None:
    run = tmp_path / "run"
    before = len(endurance.said())
    code = endurance.launch(run, Fault(MOMENTS[moment][0], count, full=True))
    said = endurance.said()[before:]
    if code:
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert code in {EXIT_NO_ROOM, EXIT_BAD_INPUT}, said
        assert len(lines) == 1, said
        assert "Traceback" not in said
        print(lines[0])
        assert endurance.launch(run, None) == 0
    assert endurance.compare(run) == 0
