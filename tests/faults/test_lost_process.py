"""A process that is killed or stopped ends the others in time, with one line, and nothing is lost."""

from __future__ import annotations

import signal
import time
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
    seconds: float


def lose(endurance: Endurance, run: Path, fault: Fault) -> Loss:
    """Launch a run, and leave its other processes to themselves when the fault befalls one."""
    values = endurance.values(run)
    log = run.with_suffix(".log")
    began = time.monotonic()
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
    return Loss(
        ended.codes, [x for x in said.splitlines() if x.startswith("error: ")], time.monotonic() - began
    )


def check(engine: str, tmp_path: Path, moment: str, rank: int, number: int) -> None:
    endurance, run = Endurance(engine, tmp_path), tmp_path / "run"
    # what only rank 0 does befalls rank 1 a moment later
    at = Fault(MOMENTS[moment], rank=rank, number=number)
    loss = lose(endurance, run, at)
    assert loss.codes[rank] == -signal.SIGKILL
    assert loss.codes[1 - rank] == EXIT_LOST_PROCESS
    how = "ended without a word" if number == signal.SIGKILL else f"did not answer within {SILENCE} s"
    assert len(loss.lines) == 1
    assert loss.lines[0].startswith(f"error: lost a process: rank {rank} (process ")
    assert how in loss.lines[0]
    print(loss)
    assert endurance.launch(run, None) == 0
    assert endurance.compare(run) == 0


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFA_HF_PEER_TIMEOUT", str(SILENCE))


@pytest.mark.parametrize(
    ("engine", "rank", "number"),
    [
        ("ddp", 0, signal.SIGKILL),
        ("ddp", 1, signal.SIGSTOP),
        ("ddp", 0, signal.SIGSTOP),
        ("ddp", 1, signal.SIGKILL),
    ],
)
def test_in_training(tmp_path: Path, engine: str, rank: int, number: int) -> None:
    check(engine, tmp_path, "step", rank, number)
