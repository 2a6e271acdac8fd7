"""The walls of a sandbox one by one: its filter, bubblewrap's path, lengths, the judge's time, memory."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfa_hf.evaluation.sandbox import (
    Bubblewrap,
    Limits,
    Namespaces,
    Outcome,
    Program,
    boxes,
    problem_with,
    run_program,
)
from sfa_hf.evaluation.sandbox.inside import system_calls
from sfa_hf.evaluation.sandbox.inside.filter import program as filter_program
from sfa_hf.evaluation.sandbox.inside.walls import leave_keyrings
from sfa_hf.evaluation.sandbox.watch import descendants, usage

LIMITS = Limits(cpu_seconds=1, memory_mb=256, disk_mb=8)
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}


# ------------------------------------------------------------------------------------------------ the filter


def answer(
    machine: str, number: int, *arguments: int, contained: bool = True, architecture: int | None = None
) -> int:
    """What the kernel does with a call: classic BPF as in linux/filter.h, as far as it is used."""
    own, _ = system_calls.ARCHITECTURES[machine]
    words = [number, own if architecture is None else architecture, 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        words += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    code, held, place = filter_program(machine, contained=contained), 0, 0
    while True:
        word, yes, no, constant = code[place]
        assert 0 <= yes < 256
        assert 0 <= no < 256
        if word == 0x06:
            return constant
        if word == 0x20:
            held = words[constant // 4]
        elif word == 0x54:
            held &= constant
        else:
            met = held == constant if word == 0x15 else held > constant
            assert word in (0x15, 0x25)
            place += yes if met else no
        place += 1


@pytest.mark.parametrize("machine", system_calls.ARCHITECTURES)
@pytest.mark.parametrize("contained", [True, False])
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine: str, contained: bool) -> None:
    column = system_calls.ARCHITECTURES[machine][1]
    refused = {numbers[column]: ERRNO | code for numbers, code in system_calls.REFUSED.values()}
    by_argument = {each.numbers[column] for each in system_calls.conditions(contained=contained)}
    for number in set(range(system_calls.LAST + 1)) - by_argument:
        assert answer(machine, number, contained=contained) == refused.get(number, ALLOW), number
    for number in (system_calls.LAST + 1, 0x40000000, 0x40000027, 0xFFFFFFFF):
        assert answer(machine, number, contained=contained) == ERRNO | errno.ENOSYS
    assert answer(machine, 0, contained=contained, architecture=0x40000003) == KILL  # i386


CALLS = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "unshare": (272, 97),
    "mmap": (9, 222),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    "kill": (62, 129),
}
UNIX, INET, VSOCK = 1, 2, 40


@pytest.mark.parametrize("machine", system_calls.ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "boxed", "boxless"),
    [
        ("socket", (UNIX, 1), 0, errno.EPERM),  # other programs' sockets are in reach without a box
        ("socket", (INET, 1), errno.EPERM, errno.EPERM),
        ("socket", (VSOCK, 1), errno.EPERM, errno.EPERM),
        ("socket", (UNIX + (INET << 32), 1), 0, errno.EPERM),  # the kernel takes 32 bits
        ("socketpair", (UNIX, 1), 0, 0),
        ("socketpair", (30, 1), errno.EPERM, errno.EPERM),
        ("clone", (0x003D0F00,), 0, 0),  # a thread
        ("clone", (17,), 0, 0),  # a fork
        ("clone", (0x4111,), 0, 0),  # vfork
        *[("clone", (1 << bit | 17,), errno.EPERM, errno.EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)],
        *[("unshare", (1 << bit,), errno.EPERM, errno.EPERM) for bit in (7, 17, 25, 26, 27, 28, 29, 30)],
        ("unshare", (0x600,), 0, 0),
        ("mmap", (0, 4096, 3, 0x22), 0, 0),  # private, as malloc does
        ("mmap", (0, 4096, 3, 0x20022), 0, 0),  # a thread's stack
        ("mmap", (0, 4096, 3, 0x01), 0, 0),  # a file
        ("mmap", (0, 4096, 3, 0x21), errno.ENOMEM, errno.ENOMEM),
        ("mmap", (0, 4096, 3, 0x23), errno.ENOMEM, errno.ENOMEM),  # MAP_SHARED_VALIDATE
        ("mmap", (0, 4096, 3, 0x40022), errno.ENOMEM, errno.ENOMEM),  # huge pages
        ("prlimit64", (0, 7), 0, 0),
        ("prlimit64", (1, 7), errno.EPERM, errno.EPERM),
        ("ioctl", (0, 0x5401), 0, 0),
        ("ioctl", (0, 0x5412), errno.EPERM, errno.EPERM),
        ("kill", (-1, 9), 0, errno.EPERM),
        ("kill", (1234, 9), 0, 0),
    ],
)
def test_some_calls_are_refused_by_an_argument(
    machine: str, call: str, arguments: tuple[int, ...], boxed: int, boxless: int
) -> None:
    number = CALLS[call][system_calls.ARCHITECTURES[machine][1]]
    for contained, code in ((True, boxed), (False, boxless)):
        expected = ERRNO | code if code else ALLOW
        assert answer(machine, number, *arguments, contained=contained) == expected


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = next((Path(path) for path in HEADERS[machine] if Path(path).exists()), None)
    if header is None:
        pytest.skip("no kernel headers on this machine")
    pairs = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    known = {name: int(number) for name, number in pairs}
    column = system_calls.ARCHITECTURES[machine][1]
    ours = {name: numbers for name, (numbers, _) in system_calls.REFUSED.items()} | CALLS
    found = {name: numbers[column] for name, numbers in ours.items() if numbers[column] is not None}
    newer = {name for name, number in found.items() if number not in known.values()}
    assert {name: known.get(name) for name in found if name not in newer} == {
        name: number for name, number in found.items() if name not in newer
    }


# ------------------------------------------------------------------------------------------ bubblewrap's path


def test_a_bubblewrap_on_the_way_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "ran"
    planted = tmp_path / "bwrap"
    planted.write_text(f"#!/bin/sh\ntouch {mark}\necho shut in\n")
    planted.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f":.:{tmp_path}:{os.environ['PATH']}")
    assert shutil.which("bwrap") is not None
    problem_with(Bubblewrap())
    command = Bubblewrap().command(["/bin/true"], 1 << 20)
    if boxes.system_bubblewrap() is not None:
        assert command[0] == boxes.system_bubblewrap()
        assert Path(command[0]).is_absolute()
    assert not mark.exists()


def test_a_bubblewrap_that_others_can_change_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho shut in\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(boxes, "_SYSTEM_FOLDERS", (str(tmp_path),))  # below /tmp, where everybody writes
    boxes.system_bubblewrap.cache_clear()
    try:
        assert boxes.system_bubblewrap() is None
        assert "no bwrap" in (problem_with(Bubblewrap()) or "")
    finally:
        boxes.system_bubblewrap.cache_clear()


# ------------------------------------------------------------------------------------------- lengths and time


@pytest.fixture
def box() -> Namespaces:
    box = Namespaces()
    if problem_with(box) is not None:
        pytest.skip(f"no namespaces on this machine: {problem_with(box)}")
    return box


@pytest.mark.parametrize("size", [60_000, 70_000, 5_000_000])
@pytest.mark.parametrize("place", ["program", "test"])
def test_a_program_and_its_test_may_be_long(box: Namespaces, size: int, place: str) -> None:
    filler = f"\nheld = '{'x' * size}'\n"
    source = "def f(x):\n    return x * x\n" + filler * (place == "program")
    right = run_program(Program(source, "assert f(3) == 9" + filler * (place == "test")), box, Limits())
    wrong = run_program(Program(source, "assert f(3) == 8" + filler * (place == "test")), box, Limits())
    assert right.passed, right
    assert wrong.outcome is Outcome.FAILED, wrong


def test_the_judge_has_the_limit_too(box: Namespaces) -> None:
    """In C, where no signal is looked at."""
    started = time.monotonic()
    verdict = run_program(
        Program("def f(x):\n    return range(x)\n", "assert sum(f(10**15)) == 1"), box, LIMITS
    )
    assert verdict.outcome is Outcome.TIMEOUT
    assert time.monotonic() - started < LIMITS.clock_seconds + 5


def test_a_floods_end_is_not_waited_for(box: Namespaces) -> None:
    class Flood(Namespaces):
        def command(self, inner: object, disk_bytes: object) -> list[str]:
            return ["/bin/sh", "-c", "echo started; yes"]

    verdict = run_program(Program("", ""), Flood(), LIMITS)
    assert verdict.outcome in (Outcome.TIMEOUT, Outcome.CRASHED)


# --------------------------------------------------------------------------------------- what still works

ORDINARY = {
    "threads": """
import threading
def f(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(x * x))
    thread.start()
    thread.join()
    return found[0]
""",
    "pool of processes": """
import concurrent.futures
def square(x):
    return x * x
def f(x):
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        return list(pool.map(square, [x]))[0]
""",
    "manager of shared objects": """
import multiprocessing
def f(x):
    with multiprocessing.Manager() as manager:
        return manager.list([x * x])[0]
""",
    "shared memory of POSIX": """
from multiprocessing import shared_memory
def f(x):
    held = shared_memory.SharedMemory(create=True, size=9)
    held.buf[0] = x * x
    found = held.buf[0]
    held.close()
    held.unlink()
    return found
""",
    "asyncio": """
import asyncio
async def answer(x):
    await asyncio.sleep(0)
    return x * x
def f(x):
    return asyncio.run(answer(x))
""",
    "another interpreter": """
import subprocess, sys
def f(x):
    return int(subprocess.run([sys.executable, '-c', f'print({x} ** 2)'], capture_output=True).stdout)
""",
    "a mapped file": """
import mmap, tempfile
def f(x):
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096) as held:
            held[0] = x
            return held[0] * x
""",
}


@pytest.mark.parametrize("source", ORDINARY.values(), ids=ORDINARY)
def test_the_filter_is_in_no_ordinary_programs_way(box: Namespaces, source: str) -> None:
    verdict = run_program(Program(source, "assert f(3) == 9"), box, Limits())
    assert verdict.passed, verdict


def test_every_run_has_a_session_keyring_of_its_own() -> None:
    """Seen with the filter off: behind it no call of a program's reaches a key at all."""
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    libc = ctypes.CDLL(None)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        before = libc.syscall(number, 0, -3, 1)  # KEYCTL_GET_KEYRING_ID of the session's
        leave_keyrings()
        os.write(writing, json.dumps([before, libc.syscall(number, 0, -3, 0)]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        before, after = json.load(stream)
    if before == -1:
        pytest.skip("no keyrings on this machine")
    assert before != after


# --------------------------------------------------------------------------------------------------- memory


def test_pages_that_are_shared_count_once() -> None:
    """A child that shares its parent's pages adds next to nothing; pages of its own count."""
    script = (
        "import os, sys, time\nheld = bytearray(64 << 20)\n"
        "for _ in range(4):\n    if os.fork() == 0:\n        time.sleep(60)\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        used = usage(process.pid)
    finally:
        for pid in [*descendants(process.pid)][::-1]:
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    assert used.tasks == 5
    assert 64 << 20 < used.bytes < 160 << 20


def test_shared_memory_counts() -> None:
    before = usage(os.getpid()).bytes
    with mmap.mmap(-1, 64 << 20) as held:
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(held)), 1, 64 << 20)
        assert usage(os.getpid()).bytes - before > 60 << 20
