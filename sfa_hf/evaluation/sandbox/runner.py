"""Programs and their tests, run in boxes, several at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from sfa_hf.evaluation.sandbox.boxes import Box
from sfa_hf.evaluation.sandbox.inside.judge import STARTED
from sfa_hf.evaluation.sandbox.limits import Limits
from sfa_hf.evaluation.sandbox.outcome import Outcome, Verdict
from sfa_hf.evaluation.sandbox.view import ENVIRONMENT, interpreter, site_folders
from sfa_hf.evaluation.sandbox.watch import descendants, usage

_TICK_SECONDS = 0.05
# for a sandbox to start on a busy machine; the judge inside keeps the program's own time
_GRACE_SECONDS = 20.0
# the box's own processes, beside the program's
_OWN_PROCESSES = 4
_START = "import sys; sys.path[0] = {!r}; from sfa_hf.evaluation.sandbox.inside.judge import main; main()"


class SandboxError(RuntimeError):
    """A box could not be set up: nothing is known about the program."""


@dataclass(frozen=True)
class Program:
    """Python source and the test that it must pass.

    Attributes:
        source: run as a module.
        test: run after it, in a process of its own; sees the names that ``source`` defines, and
            ``program.NAME`` for one that it defines too. The program passes if the test raises nothing.
    """

    source: str
    test: str


def run_programs(programs: Sequence[Program], box: Box, limits: Limits, workers: int) -> list[Verdict]:
    """Run each program in a box of its own, at most ``workers`` at a time; verdicts in order.

    Raises:
        SandboxError: a box did not start, which says nothing about a program.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(lambda program: run_program(program, box, limits), programs))


def run_program(program: Program, box: Box, limits: Limits) -> Verdict:
    """Run one program. Raises SandboxError as :func:`run_programs` does."""
    started = time.monotonic()
    with box.room() as room:
        inner = [interpreter(), "-s", "-S", "-B", "-c", _START.format(room.code)]
        process = subprocess.Popen(  # noqa: S603 - our own command
            box.command(inner, limits.disk_mb << 20),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT | room.environment,
            cwd=room.folder,
            start_new_session=True,
            **box.options(),
        )
        verdict = _watched(process, _job(program, box, limits), limits)
    return replace(verdict, seconds=time.monotonic() - started)


def _job(program: Program, box: Box, limits: Limits) -> bytes:
    job = {
        "program": program.source,
        "test": program.test,
        "limits": limits.resources(contained=box.contained),
        "seconds": limits.clock_seconds,
        "most_output": limits.output_mb << 20,
        "site": site_folders(),
    }
    return json.dumps(job).encode()


def _watched(process: subprocess.Popen[bytes], job: bytes, limits: Limits) -> Verdict:
    """The verdict that comes out of the box, or why it had to be broken off."""
    deadline = time.monotonic() + limits.clock_seconds + _GRACE_SECONDS
    waiting: bytes | None = job
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return _read(*process.communicate(waiting, timeout=_TICK_SECONDS))
            waiting = None  # it is on its way
            if (broken := _broken(process.pid, limits, deadline)) is not None:
                return broken
    finally:
        _end(process)


def _broken(pid: int, limits: Limits, deadline: float) -> Verdict | None:
    if time.monotonic() > deadline:
        return Verdict(Outcome.TIMEOUT, f"more than {limits.clock_seconds:g} s")
    used = usage(pid)
    if used.bytes > limits.memory_mb << 20:
        return Verdict(Outcome.OUT_OF_MEMORY, f"more than {limits.memory_mb} MiB")
    if used.processes > limits.processes + _OWN_PROCESSES:
        return Verdict(Outcome.TOO_MANY_PROCESSES, f"more than {limits.processes} processes")
    return None


def _read(output: bytes, errors: bytes) -> Verdict:
    if not output.startswith(STARTED):
        lines = errors.decode(errors="replace").strip().splitlines()
        raise SandboxError(f"a sandbox did not start: {lines[-1] if lines else 'it said nothing'}")
    text = output.removeprefix(STARTED)
    if not text:
        return Verdict(Outcome.CRASHED, "the sandbox was killed from inside")
    found = json.loads(text)
    return Verdict(Outcome(found["outcome"]), found["detail"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing running: the kernel kills what is in a namespace with its first process."""
    if process.poll() is None:
        for pid in [*descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
