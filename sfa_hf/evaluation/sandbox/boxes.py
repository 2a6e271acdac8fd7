"""The ways to shut a program in, best first, and which of them this machine has."""

from __future__ import annotations

import functools
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from sfa_hf.evaluation.sandbox.inside.enter import DEVICES, NOBODY
from sfa_hf.evaluation.sandbox.view import CODE, ENVIRONMENT, PACKAGE, SCRATCH, interpreter, system_view

INSIDE = Path(__file__).parent / "inside"
_PROBE_SECONDS = 20.0
# the judge's imports too: nobody must be able to read the package
_PROBE = """
import sys; sys.path[0] = {code!r}
import sfa_hf.evaluation.sandbox.inside.judge as judge
judge.shut_in(judge.JUDGE, contained={contained})
print('shut in')
"""
# no other folder, whatever PATH says: what runs as bubblewrap is trusted with everything
_SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/run/current-system/sw/bin")
_MOST_FOLDER_BYTES = 1 << 20


@dataclass(frozen=True)
class Room:
    """Where a box finds things.

    Attributes:
        code: the import path that leads to this package's ``inside`` folder.
        folder: current folder of the command.
        environment: variables beside those of every program.
    """

    code: str = CODE
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)


class Box(Protocol):
    """A way to run a command shut in.

    Attributes:
        name: for logs and results.
        contained: whether it has namespaces of its own.
    """

    name: str
    contained: bool

    def command(self, inner: Sequence[str], disk_bytes: int) -> list[str]:
        """The command that runs ``inner`` shut in."""

    def options(self) -> dict[str, Any]:
        """Further arguments of Popen."""

    def room(self) -> AbstractContextManager[Room]:
        """What one run needs outside the box."""


class Bubblewrap:
    """`bubblewrap <https://github.com/containers/bubblewrap>`_, as an unprivileged user."""

    name, contained = "bubblewrap", True

    def command(self, inner: Sequence[str], disk_bytes: int) -> list[str]:
        view = system_view()
        found = [system_bubblewrap() or "bwrap", "--unshare-all", "--unshare-user", "--disable-userns"]
        found += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
        found += ["--uid", f"{NOBODY}", "--gid", f"{NOBODY}"]
        # first, so that it hides nothing that is shown: an environment may lie in /tmp
        found += ["--size", f"{disk_bytes}", "--tmpfs", SCRATCH]
        for path in view.shown:
            found += ["--ro-bind", path, path]
        found += ["--ro-bind", str(INSIDE), f"{CODE}/{PACKAGE}"]
        for device in DEVICES:
            found += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        for place, target in view.links.items():
            found += ["--symlink", target, place]
        found += ["--remount-ro", "/", "--chdir", SCRATCH]
        return [*found, "--", *inner]

    def options(self) -> dict[str, Any]:
        # root is exempt from the limit on processes, in every user namespace: it starts as nobody
        root = os.geteuid() == 0
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}

    def room(self) -> AbstractContextManager[Room]:
        return nullcontext(Room())


@functools.cache
def system_bubblewrap() -> str | None:
    """Its absolute path, free of links: a system folder's, which nobody but root can change."""
    for folder in _SYSTEM_FOLDERS:
        path = Path(folder, "bwrap").resolve()
        found = [each.stat() for each in (path, *path.parents)] if path.is_file() else []
        others = stat.S_IWGRP | stat.S_IWOTH
        if found and all(each.st_uid == 0 and not each.st_mode & others for each in found):
            return str(path)
    return None


class Namespaces:
    """Linux namespaces, without a program beside Python: see ``inside/enter.py``."""

    name, contained = "namespaces", True

    def command(self, inner: Sequence[str], disk_bytes: int) -> list[str]:
        view = system_view()
        spec = {
            "shown": {path: path for path in view.shown} | {str(INSIDE): f"{CODE}/{PACKAGE}"},
            "links": view.links,
            "folders": {SCRATCH: disk_bytes},
        }
        return [interpreter(), "-s", "-S", "-B", str(INSIDE / "enter.py"), json.dumps(spec), *inner]

    def options(self) -> dict[str, Any]:
        return {}

    def room(self) -> AbstractContextManager[Room]:
        return nullcontext(Room())


class Bare:
    """No namespaces: limits, a filter of system calls, a session of its own; nobody's rights if this is root.

    For machines that cannot do better, on their owner's word.
    """

    name, contained = "none", False

    def command(self, inner: Sequence[str], disk_bytes: int) -> list[str]:  # noqa: ARG002 - it has no bound
        return list(inner)

    def options(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def room(self) -> Iterator[Room]:
        """A temporary folder; the code behind a symbolic link, apart from the rest of the package."""
        with TemporaryDirectory(prefix="program-") as name:
            Path(name).chmod(0o711)  # the program may not be its owner
            scratch, code = Path(name, "scratch"), Path(name, "code", PACKAGE)
            scratch.mkdir()
            code.parent.mkdir(parents=True)
            code.symlink_to(INSIDE)
            if os.geteuid() == 0:
                os.chown(scratch, NOBODY, NOBODY)
            yield Room(str(Path(name, "code")), str(scratch), {"HOME": str(scratch), "TMPDIR": str(scratch)})


@functools.cache
def available_box() -> Box | None:
    """The best box that works here, or None. Tried by loading the judge in it, once a process."""
    return next((box for box in (Bubblewrap(), Namespaces()) if problem_with(box) is None), None)


@functools.cache
def problem_with(box: Box) -> str | None:
    """Why a box does not work here; None if it does."""
    if sys.platform != "linux":
        return "needs Linux"
    if isinstance(box, Bubblewrap) and system_bubblewrap() is None:
        return "there is no bwrap in a system folder that only root can write to"
    try:
        with box.room() as room:
            probe = _PROBE.format(code=room.code, contained=box.contained)
            done = subprocess.run(  # noqa: S603 - our own command
                box.command([interpreter(), "-s", "-S", "-B", "-c", probe], _MOST_FOLDER_BYTES),
                env=ENVIRONMENT | room.environment,
                capture_output=True,
                text=True,
                timeout=_PROBE_SECONDS,
                check=False,
                **box.options(),
            )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.stdout == "shut in\n" else (done.stderr.strip().splitlines() or ["says nothing"])[-1]
