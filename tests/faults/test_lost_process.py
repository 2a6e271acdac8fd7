"""A process that is killed or stopped ends the others in time, with one line, and nothing is lost."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest

from sfa_hf.distributed.peers import EXIT_LOST_PROCESS
from tests import launches
from tests.faults.fault import Fault
from tests.faults.survive import Endurance

SILENCE = 3
MOMENTS = {
    "step": "1-words/checkpoint-2",
    "scoring": "records/after-1/.words",
    "model": "/.model.tmp",
}


class Loss(NamedTuple):
    """What is seen of a launch that lost a process."""

    codes: list[int]
    lines: list[str]


def lose(endurance: Endurance, run: Path, fault: Fault) -> Loss:
    """Launch a run, and leave its other processes to themselves when the fault befalls one."""
    values = endurance.values(run)
    log = run.with_suffix(".log")
    call = {"values": values, "fault": asdict(fault)}
    ended = launches.launch(
        "tests.faults.launcher:run",
        call,
        [log, log],
        seconds=120,
        together=False,
        kills_rest=False,
        ops=["ShareMemCommBuilder"] if "deepspeed" in values["training"] else [],
    )
    said = log.read_text(errors="replace")
    print(said[-3000:])
    assert not ended.hung
    assert "Traceback" not in said
    return Loss(ended.codes, [line for line in said.splitlines() if line.startswith("error: ")])


def check(endurance: Endurance, run: Path, moment: str, rank: int, number: int) -> None:
    loss = lose(endurance, run, Fault(MOMENTS[moment], rank=rank, number=number))
    assert loss.codes[rank] == -signal.SIGKILL
    assert loss.codes[1 - rank] == EXIT_LOST_PROCESS
    how = "ended without a word" if number == signal.SIGKILL else f"did not answer within {SILENCE} s"
    assert len(loss.lines) == 1
    assert loss.lines[0].startswith(f"error: lost a process: rank {rank} (process ")
    assert how in loss.lines[0]
    assert endurance.launch(run, None) == 0
    assert endurance.compare(run) == 0


@pytest.fixture(scope="module")
def endurance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Endurance:
    """One engine's undisturbed run, which all cases of that engine are compared with."""
    return Endurance(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFA_HF_PEER_TIMEOUT", str(SILENCE))


_KILLS = [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)]


@pytest.mark.slow
@pytest.mark.parametrize("endurance", ["ddp", "zero2", "zero3"], indirect=True)
@pytest.mark.parametrize(("rank", "number"), _KILLS)
def test_in_training(tmp_path: Path, endurance: Endurance, rank: int, number: int) -> None:
    check(endurance, tmp_path / "run", "step", rank, number)


@pytest.mark.slow
@pytest.mark.parametrize("endurance", ["ddp"], indirect=True)
@pytest.mark.parametrize("moment", ["scoring", "model"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_in_evaluation_and_while_a_model_is_saved(
    tmp_path: Path, endurance: Endurance, moment: str, number: int
) -> None:
    """Both are rank 0's work, which rank 1 waits for."""
    check(endurance, tmp_path / "run", moment, 0, number)
