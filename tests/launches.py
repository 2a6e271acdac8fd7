"""Calls a function in several real processes at once, as a launcher would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Ended:
    """How the processes of a launch ended.

    Attributes:
        codes: exit codes by rank; minus the signal's number for one that was killed.
        hung: whether one had to be killed because time was up.
    """

    codes: list[int]
    hung: bool


def launch(
    function: str,
    arguments: dict[str, Any],
    logs: Sequence[Path],
    *,
    seconds: float,
    together: bool,
    distributed: bool = True,
    ops: Sequence[str] = (),
    kills_rest: bool = True,
) -> Ended:
    """Call ``function(**arguments)`` in as many processes as there are logs, and wait for all.

    Args:
        function: ``module:name``, imported in each process.
        arguments: JSON values.
        logs: what each process prints is added to its own; they may be the same.
        seconds: they are taken for hung after so long, and killed.
        together: kill all once one has failed.
        distributed: each process finds RANK, WORLD_SIZE, MASTER_ADDR, ... set, and no process group.
        ops: DeepSpeed's builders whose ops are loaded before the processes start.
        kills_rest: kill all once one was killed, as a launcher does. A process that is stopped is killed once
            no other is left.
    """
    requests, answers = _server()
    port = _free_port()
    environments = [
        {**os.environ, "OMP_NUM_THREADS": "1", **(_rank(rank, len(logs), port) if distributed else {})}
        for rank in range(len(logs))
    ]
    request = {
        "call": {"function": function, "arguments": arguments, "path": sys.path, "folder": str(Path.cwd())},
        "processes": [
            {"environment": environment, "log": str(log)}
            for environment, log in zip(environments, logs, strict=True)
        ],
        "seconds": seconds,
        "together": together,
        "ops": list(ops),
        "kills_rest": kills_rest,
    }
    print(json.dumps(request), file=requests, flush=True)
    return Ended(**json.loads(answers.readline()))


@cache
def _server() -> tuple[TextIO, TextIO]:
    """Where to write requests to the process that forks, and to read its answers; it ends with its input."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path])),
        "OMP_NUM_THREADS": "1",
    }
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tests.launch_server", str(writing)]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True, pass_fds=[writing])
    os.close(writing)
    assert server.stdin is not None
    return server.stdin, os.fdopen(reading)


def _rank(rank: int, ranks: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
