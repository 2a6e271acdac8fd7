"""Runs a function of a test module in several real processes, as a launcher would.

>>> def both_ranks_agree(value: int) -> int:
...     with gloo():
...         ...
...     return value
>>> assert run_ranks(both_ranks_agree, 2, value=3) == [3, 3]

The function is imported again in each process, so it stands at the top level of its module; its arguments
and what it returns are JSON. Any rank that fails, hangs or exits with another code than 0 fails the test, and
what it printed is shown.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from sfa_hf.distributed import wait_for_gloo_workers

SECONDS = 180
_SHOWN_CHARACTERS = 6000


def run_ranks(
    function: Callable[..., Any], ranks: int, *, seconds: float = SECONDS, **arguments: Any
) -> list[Any]:
    """Call ``function(**arguments)`` in ``ranks`` processes and return what each returned, by rank.

    Args:
        function: found by its module and name in each process.
        ranks: how many processes; each finds RANK, WORLD_SIZE, MASTER_ADDR, ... set, and no process group.
        seconds: the processes are killed after so long, and the test fails.
        **arguments: JSON values.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(rank)) for rank in range(ranks)]
        port = _free_port()
        processes = [
            _start(name, arguments, place, _environment(rank, ranks, port))
            for rank, place in enumerate(places)
        ]
        codes = _wait(processes, time.monotonic() + seconds)
        if any(codes):
            raise AssertionError(_failure(name, codes, places, seconds))
        return [json.loads(place.with_suffix(".json").read_text()) for place in places]


@contextmanager
def gloo() -> Iterator[None]:
    """Open the default process group on gloo; close it even if the body fails.

    What holds the group (a DDP or FSDP module) belongs in a function called in the body, so that it is gone
    before the group is: whoever drops the last reference to a gloo group waits for its threads while holding
    the interpreter's lock, and a thread that needs the lock then waits for ever.
    """
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        wait_for_gloo_workers()
        dist.destroy_process_group()


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(
    name: str, arguments: dict[str, Any], place: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, name, json.dumps(arguments), str(place.with_suffix(".json"))]
    with place.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _wait(processes: list[subprocess.Popen[bytes]], deadline: float) -> list[int | None]:
    """Wait for all, or until one fails or time is up; kill the rest. None stands for a killed process."""
    while True:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for process, code in zip(processes, codes, strict=True):
        if code is None:
            _kill(process)
    return [-1 if code is None and not any(codes) else code for code in codes]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children; it first prints where its threads are."""
    process.send_signal(signal.SIGUSR1)
    time.sleep(1)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(name: str, codes: list[int | None], places: list[Path], seconds: float) -> str:
    lines = [f"{name}: exit codes {codes} (None: killed after another failed, -1: killed after {seconds} s)"]
    for rank, (code, place) in enumerate(zip(codes, places, strict=True)):
        if code not in {0, None}:
            lines += [
                f"--- rank {rank}",
                place.with_suffix(".log").read_text(errors="replace")[-_SHOWN_CHARACTERS:],
            ]
    return "\n".join(lines)


def _run_in_this_process(name: str, arguments: str, result: str) -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    module, function = name.split(":")
    value = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(result).write_text(json.dumps(value))


if __name__ == "__main__":
    _run_in_this_process(*sys.argv[1:])
