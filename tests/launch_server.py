"""Forks the processes of a launch from one that has imported everything: seconds instead of ten each time.

A process of its own, started by :func:`tests.launches.launch`: what it forks from is the same each time,
without the threads, streams and process groups of the tests that ran before. One request a line, one answer a
line, both JSON.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import transformers.trainer  # noqa: F401 - imported before the processes are forked, once
from deepspeed.accelerator import get_accelerator

import sfa_hf.sequence  # noqa: F401 - the same


def main() -> None:
    # A pipe of their own: libraries print to standard output.
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    gc.freeze()  # a process that ends would otherwise visit, and so copy, all that was imported
    for line in sys.stdin:
        print(json.dumps(_launch(**json.loads(line))), file=answers)


def _launch(
    *,
    call: dict[str, Any],
    processes: list[dict[str, Any]],
    seconds: float,
    together: bool,
    ops: list[str],
    kills_rest: bool,
) -> dict[str, list[int] | bool]:
    """Make the call in each process, wait for all, and give their exit codes and whether one hung."""
    for op in ops:
        # A process killed while it loads an op leaves torch's lock behind, and all later ones wait for it.
        get_accelerator().create_op_builder(op).load(verbose=False)
    # Through pipes: a full disk must not swallow what a process says of it.
    with ExitStack() as stack:
        outputs = {log: stack.enter_context(_Output(log)) for log in {each["log"] for each in processes}}
        pids = []
        for each in processes:
            if not (pid := os.fork()):
                stack.pop_all()  # the pipes are not its to close
                _become(each["environment"], outputs[each["log"]].fileno())
                _call(**call)
            pids.append(pid)
        return _wait(pids, time.monotonic() + seconds, together, kills_rest)


class _Output:
    """A pipe into a file."""

    def __init__(self, log: str) -> None:
        with Path(log).open("ab") as file:
            self._cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)

    def __enter__(self) -> _Output:
        return self

    def fileno(self) -> int:
        assert self._cat.stdin is not None
        return self._cat.stdin.fileno()

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):  # a process that was left behind holds the other end
            self._cat.communicate(timeout=5)
        self._cat.kill()
        self._cat.wait()


def _wait(pids: list[int], deadline: float, together: bool, kills_rest: bool) -> dict[str, list[int] | bool]:
    """Wait for all. One that was killed takes the others along, and one that failed, if they end together."""
    codes: dict[int, int] = {}
    stopped = set()
    hung = False
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if done and os.WIFSTOPPED(status):
                stopped.add(pid)
            elif done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        left = set(pids) - set(codes)
        if (left and left <= stopped) or (kills_rest and -signal.SIGKILL in codes.values()):
            _signal(left, signal.SIGKILL)
        elif left and ((together and any(codes.values())) or time.monotonic() > deadline):
            hung = hung or not any(codes.values())
            _signal(left, signal.SIGUSR1)  # they tell where they are
            time.sleep(1)
            _signal(left, signal.SIGKILL)
        time.sleep(0.01)
    return {"codes": [codes[pid] for pid in pids], "hung": hung}


def _signal(pids: set[int], number: int) -> None:
    """To each process and what it started."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, number)


def _become(environment: dict[str, str], output: int) -> None:
    """Make this process one of its own session, environment and output."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ.clear()
    os.environ.update(environment)


def _call(function: str, arguments: dict[str, Any], path: list[str], folder: str) -> NoReturn:
    """Call a function, and end as any Python process does."""
    os.chdir(folder)
    sys.path[:] = path
    module, name = function.split(":")
    getattr(importlib.import_module(module), name)(**arguments)
    sys.exit()


if __name__ == "__main__":
    main()
