"""What a process gives up before it runs anything of a stranger's, in every box and without one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from sfa_hf.evaluation.sandbox.inside.filter import load_filter

# linux/prctl.h, linux/keyctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Raises OSError if the kernel refuses."""
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def leave_keyrings() -> None:
    """A session keyring of this run's own, empty.

    If the kernel refuses (it was built without keys, a container's filter, a quota), programs still reach no
    keys: the filter of system calls comes next.
    """
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def shut_in(user: int, *, contained: bool) -> None:
    """Become ``user`` if this is root, which it is only where there is no box; then filter system calls."""
    if os.geteuid() == 0:
        _become(user)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    load_filter(contained=contained)


def _become(user: int) -> None:
    """Change user; what Python imports from then on is found even where only root may pass, as in /root.

    A folder that is open is found by its descriptor, whoever may or may not come to it by its path.
    """
    opened = {path: os.open(path, os.O_PATH) for path in sys.path if os.path.isdir(path)}  # noqa: PTH112
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    for path, descriptor in opened.items():
        if os.access(path, os.R_OK | os.X_OK):
            os.close(descriptor)
        else:
            _moved(path, f"/proc/self/fd/{descriptor}")


def _moved(old: str, new: str) -> None:
    """Let imports look in ``new`` for what was in ``old``, submodules of loaded packages included."""
    sys.path[:] = [new if path == old else path for path in sys.path]
    for module in list(sys.modules.values()):
        folders = getattr(module, "__path__", None)
        if isinstance(folders, list):
            folders[:] = [
                new + path.removeprefix(old) if path.startswith(f"{old}/") else path for path in folders
            ]
