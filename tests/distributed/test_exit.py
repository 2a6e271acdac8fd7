"""Distributed processes end with exit code 0, every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import late_workers
import pytest
import torch.distributed as dist
from harness import run_ranks
from zero_rows import Row, quiet_deepspeed, start, train_step

from sfa_hf.distributed import clean_end

LAUNCHES = 50
IN_THE_WORST_CASE = 3


@pytest.mark.slow
def test_late_gloo_workers_do_not_abort_the_process(tmp_path: Path) -> None:
    """Without ``clean_end`` about half of these processes end by SIGABRT."""
    command = [sys.executable, late_workers.__file__, str(tmp_path)]
    ended = [subprocess.run(command, check=False, capture_output=True) for _ in range(IN_THE_WORST_CASE)]
    assert [process.returncode for process in ended] == [0] * IN_THE_WORST_CASE, ended


def test_groups_are_closed_after_success_alone(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    with pytest.raises(ValueError, match="the body's"), clean_end():
        raise ValueError("the body's")
    assert dist.is_initialized()
    with clean_end():
        pass
    assert not dist.is_initialized()


def test_a_process_without_a_group_ends_as_it_is() -> None:
    with clean_end():
        assert not dist.is_initialized()


@pytest.mark.slow
def test_fifty_launches_in_a_row_end_with_exit_code_0() -> None:
    """Each launch: two processes, three steps of ZeRO-3; ``run_ranks`` asserts the exit codes."""
    for _ in range(LAUNCHES):
        assert run_ranks(train_briefly, 2) == [3, 3]


def train_briefly() -> int:
    row = Row(3, "bf16")
    with clean_end(), quiet_deepspeed():
        engine = start(row)
        for step in range(3):
            train_step(engine, row, step)
        return engine.global_steps
