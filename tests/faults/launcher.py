"""Launches a run on one or several processes, one of which may be killed, told to end, or out of disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from tests.faults.fault import Fault


def launch(values: dict[str, Any], ranks: int, log: Path, fault: Fault | None, seconds: float) -> list[int]:
    """Run the sequence that a config describes, as its script would, and wait for it.

    Args:
        values: the config.
        ranks: how many processes.
        log: what they print is added to it.
        fault: what befalls one of them. If it is killed, so are the others; else they end by themselves.
        seconds: they are taken for hung after so long.

    Returns:
        Exit codes by rank; minus the signal's number for one that was killed.
    """
    requests, answers = _server()
    request = {
        "values": values,
        "ranks": ranks,
        "log": str(log),
        "fault": asdict(fault) if fault else None,
        "seconds": seconds,
    }
    print(json.dumps(request), file=requests, flush=True)
    codes = json.loads(answers.readline())
    assert codes is not None, f"a process hung:\n{log.read_text(errors='replace')[-12000:]}"
    return codes


@cache
def _server() -> tuple[TextIO, TextIO]:
    """Where to write requests to the process that forks, and to read its answers; it ends with its input."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path])),
        "OMP_NUM_THREADS": "1",
    }
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tests.faults.server", str(writing)]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True, pass_fds=[writing])
    os.close(writing)
    assert server.stdin is not None
    return server.stdin, os.fdopen(reading)
