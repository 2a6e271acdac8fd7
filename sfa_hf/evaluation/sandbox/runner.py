"""Programs and their tests, run in boxes, several at once."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO

from sfa_hf.evaluation.sandbox.boxes import Box
from sfa_hf.evaluation.sandbox.inside.judge import STARTED, VERDICT_END
from sfa_hf.evaluation.sandbox.limits import Limits
from sfa_hf.evaluation.sandbox.outcome import Outcome, Verdict
from sfa_hf.evaluation.sandbox.view import ENVIRONMENT, interpreter, site_folders
from sfa_hf.evaluation.sandbox.watch import descendants, usage

_TICK_SECONDS = 0.05
# for a sandbox to start on a busy machine, before the program runs
_START_SECONDS = 60.0
# the judge keeps the clock; where it cannot, busy in one long step of the test, it is kept from outside
_MARGIN_SECONDS = 0.5
# of killing what a box leaves; each leads closer to those whose parents ended in the one before
_MOST_ROUNDS = 200
# the box's own processes, beside the program's
_OWN_PROCESSES = 4
# what a box may say: a verdict, or why it did not start
_MOST_SAID = 1 << 16
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
    # a file in memory: a pipe holds 64 KiB, and a program and its test may be longer
    with box.room() as room, open(os.memfd_create("job"), "w+b") as job:  # noqa: PTH123 - has no path
        job.write(_job(program, box, limits))
        job.seek(0)
        inner = [interpreter(), "-s", "-S", "-B", "-c", _START.format(room.code)]
        process = subprocess.Popen(  # noqa: S603 - our own command
            box.command(inner, limits.disk_mb << 20),
            stdin=job,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT | room.environment,
            cwd=room.folder,
            start_new_session=True,
            **box.options(),
        )
        with process:
            try:
                verdict = _watched(process, limits)
            finally:
                _end(process)
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


def _watched(process: subprocess.Popen[bytes], limits: Limits) -> Verdict:
    """The verdict that comes out of the box, or why it had to be broken off."""
    output, errors = bytearray(), bytearray()
    began, deadline = False, time.monotonic() + _START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(_pipe(process.stdout), selectors.EVENT_READ, output)
        selector.register(_pipe(process.stderr), selectors.EVENT_READ, errors)
        while selector.get_map():
            for key, _ in selector.select(_TICK_SECONDS):
                data = os.read(key.fd, _MOST_SAID)
                key.data.extend(data[: _MOST_SAID - len(key.data)])
                if not data:
                    selector.unregister(key.fileobj)
            if not began and output.startswith(STARTED):
                began, deadline = True, time.monotonic() + limits.clock_seconds + _MARGIN_SECONDS
            if output.startswith(STARTED) and output.endswith(VERDICT_END, len(STARTED)):
                break
            if (used_up := _used_up(process.pid, limits)) is not None:
                return used_up
            if time.monotonic() > deadline:
                if not began:
                    raise SandboxError(f"a sandbox did not start within {_START_SECONDS:g} s")
                return Verdict(Outcome.TIMEOUT, f"more than {limits.clock_seconds:g} s")
    return _read(bytes(output), errors.decode(errors="replace"))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _used_up(pid: int, limits: Limits) -> Verdict | None:
    used = usage(pid)
    if used.bytes > limits.memory_mb << 20:
        return Verdict(Outcome.OUT_OF_MEMORY, f"more than {limits.memory_mb} MiB")
    if used.tasks > limits.processes + _OWN_PROCESSES:
        return Verdict(Outcome.TOO_MANY_PROCESSES, f"more than {limits.processes} processes")
    return None


def _read(output: bytes, errors: str) -> Verdict:
    if not output.startswith(STARTED):
        lines = errors.strip().splitlines()
        raise SandboxError(f"a sandbox did not start: {lines[-1] if lines else 'it said nothing'}")
    try:
        found = json.loads(output.removeprefix(STARTED))
    except ValueError:  # no verdict, or half of one
        return Verdict(Outcome.CRASHED, "the sandbox was killed from inside")
    return Verdict(Outcome(found["outcome"]), found["detail"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing running. In a namespace the kernel kills all with its first process.

    Without one, the first process goes last: those whose parents end are its children, and so are found.
    """
    for _ in range(_MOST_ROUNDS):
        below = [*descendants(process.pid)][1:]
        if not below:
            break
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_TICK_SECONDS / 10)
    process.kill()
