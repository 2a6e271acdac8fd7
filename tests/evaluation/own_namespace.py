"""A process namespace for programs that would end every process of this machine if they could."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# linux/sched.h, linux/mount.h, linux/prctl.h
_NEWNS, _NEWPID, _NEWIPC, _NEWNET = 0x00020000, 0x20000000, 0x08000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
_PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).resolve().parents[2]


def in_own_namespace(act: Callable[[], Any]) -> Any:
    """What ``act`` returns (as JSON), run as process 1 with /proc, /tmp and /dev/shm of its own; needs root.

    Raises:
        PermissionError: this machine allows no namespaces.
        AssertionError: it did not come back, or left processes behind.
    """
    reading, writing = os.pipe()
    outer = os.fork()
    if outer == 0:
        try:
            os.close(reading)
            code = _enter(act, writing)
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(outer, 0)
    if os.waitstatus_to_exitcode(status) == 77:
        raise PermissionError(said.decode())
    found = json.loads(said)
    assert found["left"] == [], found["left"]
    return found["result"]


def _enter(act: Callable[[], Any], writing: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if libc.unshare(_NEWNS | _NEWPID | _NEWIPC | _NEWNET):
        os.write(writing, os.strerror(ctypes.get_errno()).encode())
        return 77
    first = os.fork()
    if first:
        return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    # A checkout below /tmp would be hidden by the /tmp of its own that the namespace gets.
    hidden = {place for place in (ROOT, Path(sys.prefix)) if place.is_relative_to("/tmp")}
    kept = {place: os.open(place, os.O_PATH) for place in hidden}
    for kind, place, options in (
        (b"proc", b"/proc", None),
        (b"tmpfs", b"/tmp", b"size=256m,nr_inodes=9999"),
        (b"tmpfs", b"/dev/shm", b"size=256m"),
    ):
        if libc.mount(kind, place, kind, 0, options):
            os.write(writing, os.strerror(ctypes.get_errno()).encode())
            return 1
    for place, descriptor in kept.items():
        place.mkdir(parents=True, exist_ok=True)
        if libc.mount(f"/proc/self/fd/{descriptor}".encode(), os.fsencode(place), None, _MS_BIND, None):
            os.write(writing, os.strerror(ctypes.get_errno()).encode())
            return 1
        os.close(descriptor)
    tempfile.tempdir = "/dev/shm"  # the programs fill /tmp
    result = act()
    pids = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()} - {1}
    left = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids]
    with os.fdopen(writing, "w") as stream:
        json.dump({"result": result, "left": left}, stream)
    return 0
