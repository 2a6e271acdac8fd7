"""How one process of a launch ends, so do all; with one line."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from sfa_hf.config.cli import guard, run_main
from sfa_hf.distributed import peers
from sfa_hf.distributed.peers import EXIT_LOST_PROCESS
from sfa_hf.errors import ConfigError
from tests import launches

KILL, STOP = int(signal.SIGKILL), int(signal.SIGSTOP)
SILENCE, START = 2, 3


def end(how: str, rank: int, place: str) -> None:
    """In each process: end in a way while the others wait for it in a collective."""
    mine = int(os.environ["RANK"]) == rank

    def act() -> None:
        if how == "config":
            raise ConfigError("model", "is not there", "a folder")
        if how == "unforeseen":
            raise KeyError("x")
        if how == "exit":
            sys.exit(1)
        os.kill(os.getpid(), int(how))

    def main(_: Any) -> None:
        peers.at("step 3")
        dist.init_process_group("gloo")
        if how == "late":
            dist.barrier()
            time.sleep(3 if mine else 0)
        elif mine or (how == "config" and rank == -1):
            act()
        dist.barrier()

    if mine and place == "start":
        act()
    run_main(main)


def launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, *, how: str, rank: int, place: str = "work"
) -> tuple[list[int], list[str]]:
    monkeypatch.setenv(peers.TIMEOUT, str(SILENCE))
    monkeypatch.setenv(peers.START_TIMEOUT, str(START))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    log = tmp_path / "log"
    call = {"how": how, "rank": rank, "place": place}
    ended = launches.launch(
        f"{__name__}:end", call, [log] * ranks, seconds=60, together=False, kills_rest=False
    )
    said = log.read_text()
    print(said)
    assert not ended.hung
    assert "Traceback" not in said
    return ended.codes, [line for line in said.splitlines() if "error:" in line]


@pytest.mark.parametrize(
    ("number", "rank", "problem"),
    [
        pytest.param(KILL, 0, "ended without a word", marks=pytest.mark.slow),
        pytest.param(KILL, 1, "ended without a word", marks=pytest.mark.slow),
        pytest.param(STOP, 0, f"did not answer within {SILENCE} s", marks=pytest.mark.slow),
        (STOP, 2, f"did not answer within {SILENCE} s"),
    ],
)
def test_a_lost_process_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, rank: int, problem: str
) -> None:
    codes, lines = launch(tmp_path, monkeypatch, 3, how=str(number), rank=rank)
    assert codes.pop(rank) == -KILL
    assert codes == [EXIT_LOST_PROCESS] * 2
    assert len(lines) == 1
    assert lines[0].startswith(f"error: lost a process: rank {rank} (process ")
    assert f" at step 3 {problem}" in lines[0]
    assert lines[0].endswith("the same command continues from the newest checkpoint")


@pytest.mark.parametrize(
    ("number", "rank", "who"),
    [pytest.param(KILL, 0, "rank 0", marks=pytest.mark.slow), (STOP, 1, "rank 1")],
)
def test_a_process_that_does_not_come_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, rank: int, who: str
) -> None:
    codes, lines = launch(tmp_path, monkeypatch, 2, how=str(number), rank=rank, place="start")
    assert codes[1 - rank] == EXIT_LOST_PROCESS
    assert len(lines) == 1
    assert lines[0].startswith(f"error: lost a process at the start: {who} did not come within {START} s")


_SLOW = [pytest.param(rank, marks=pytest.mark.slow) for rank in (0, -1)]


@pytest.mark.parametrize("rank", [1, *_SLOW])
def test_bad_input_of_one_process_ends_all_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """-1: of all processes."""
    codes, lines = launch(tmp_path, monkeypatch, 2, how="config", rank=rank)
    assert codes == [2, 2]
    assert lines == ["error: model: is not there (a folder)"]


def test_an_unforeseen_error_of_one_process_ends_all_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time: the second launch, by the same launcher, keeps a traceback of its own."""
    for number in (1, 2):
        codes, lines = launch(tmp_path, monkeypatch, 2, how="unforeseen", rank=1)
        assert codes == [70, 70]
        assert len(lines) == number
        assert "unexpected: KeyError: 'x'" in lines[-1]
        tracebacks = {line.partition("traceback in ")[2] for line in lines}
        assert len(tracebacks) == number


def test_processes_that_finish_one_after_another_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch(tmp_path, monkeypatch, 2, how="late", rank=1) == ([0, 0], [])


def test_a_timeout_that_is_no_number_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(peers.TIMEOUT, "soon")
    with pytest.raises(SystemExit, match="2"):
        guard(peers.join)
    assert capsys.readouterr().err == "error: SFA_HF_PEER_TIMEOUT: is 'soon' (a number of seconds)\n"
