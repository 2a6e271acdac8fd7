"""Forks the processes of a launch from one that has imported everything: seconds instead of ten each time.

A process of its own, started by :func:`tests.faults.launcher.launch`: what it forks from is the same each
time, without the threads, streams and process groups of the tests that ran before. One request a line, one
answer a line, both JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from functools import cache
from typing import Any

import transformers.trainer  # noqa: F401 - imported before the processes are forked, once
from deepspeed.accelerator import get_accelerator

from sfa_hf.cli import run_main
from sfa_hf.sequence import make_config, run_sequence
from tests.faults.fault import Fault


def main() -> None:
    # A pipe of their own: libraries print to standard output.
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    for line in sys.stdin:
        print(json.dumps(_launch(**json.loads(line))), file=answers)


def _launch(
    values: dict[str, Any], ranks: int, log: str, fault: dict[str, Any] | None, seconds: float
) -> list[int] | None:
    """Run the sequence on ``ranks`` processes; give their exit codes, None if one hung."""
    if "deepspeed" in values["training"]:
        _load_ops()
    port, struck = _free_port(), Fault(**fault) if fault else None
    # Through a pipe: a full disk must not swallow what a process says of it.
    with open(log, "ab") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as cat:  # noqa: PTH123
        assert cat.stdin is not None
        output = cat.stdin.fileno()
        pids = [
            _fork(
                values,
                _environment(rank, ranks, port),
                output,
                struck if struck and struck.rank == rank else None,
            )
            for rank in range(ranks)
        ]
        return _wait(pids, time.monotonic() + seconds)


@cache
def _load_ops() -> None:
    """A process killed while it loads an op leaves torch's lock behind, and all later ones wait for it."""
    get_accelerator().create_op_builder("ShareMemCommBuilder").load(verbose=False)


def _wait(pids: list[int], deadline: float) -> list[int] | None:
    """Exit codes; None if a process hung."""
    codes: dict[int, int] = {}
    late = False
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if not late and time.monotonic() > deadline:
            late = True
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGABRT)  # faulthandler tells where it hangs
        if -signal.SIGKILL in codes.values():
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return None if late else [codes[pid] for pid in pids]


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    if ranks == 1:
        return {}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _fork(values: dict[str, Any], environment: dict[str, str], output: int, fault: Fault | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        faulthandler.enable()
        os.environ.update(environment)
        if fault is not None:
            fault.arm()
        run_main(lambda _: print(run_sequence(make_config(values))))
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
    os._exit(99)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
