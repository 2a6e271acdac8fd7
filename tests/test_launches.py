"""A process that fails, hangs or is killed is not taken for one that did its work."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.launches import Ended, launch


def ended(function: str, tmp_path: Path, *, together: bool = True, seconds: float = 60) -> tuple[Ended, str]:
    log = tmp_path / "log"
    end = launch(f"{__name__}:{function}", {}, [log] * 2, seconds=seconds, together=together)
    return end, log.read_text()


def test_what_is_right_ends_with_0(tmp_path: Path) -> None:
    end, said = ended("print_rank", tmp_path)
    assert end == Ended([0, 0], hung=False)
    assert sorted(said.split()) == ["0", "1"]


def print_rank() -> None:
    print(os.environ["RANK"])


def test_an_error_is_shown_and_ends_the_other_too(tmp_path: Path) -> None:
    end, said = ended("fail", tmp_path)
    assert end == Ended([-signal.SIGKILL, 1], hung=False)
    assert "ValueError: aha" in said
    assert said.count("in fail\n") == 2  # where the other one was, too


def fail() -> None:
    time.sleep(2 if os.environ["RANK"] == "1" else 60)  # the other one is where it is seen
    raise ValueError("aha")


def test_an_exit_code_is_told_while_the_other_goes_on(tmp_path: Path) -> None:
    assert ended("leave", tmp_path, together=False)[0] == Ended([0, 3], hung=False)


def leave() -> None:
    if os.environ["RANK"] == "1":
        sys.exit(3)
    time.sleep(1)


def test_one_that_hangs_is_told_from_one_that_failed(tmp_path: Path) -> None:
    assert ended("hang", tmp_path, seconds=5)[0] == Ended([0, -signal.SIGKILL], hung=True)


def hang() -> None:
    if os.environ["RANK"] == "1":
        time.sleep(60)


@pytest.mark.parametrize("together", [True, False])
def test_one_that_is_killed_takes_the_other_along(tmp_path: Path, together: bool) -> None:
    end, _ = ended("die", tmp_path, together=together)
    assert end == Ended([-signal.SIGKILL] * 2, hung=False)


def die() -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_an_abort_behind_the_last_line_is_a_failure(tmp_path: Path) -> None:
    end, said = ended("abort_at_exit", tmp_path)
    assert end.codes == [-signal.SIGABRT] * 2
    assert "Aborted" in said


def abort_at_exit() -> None:
    atexit.register(os.abort)
