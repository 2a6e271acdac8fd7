"""Run a command in Linux namespaces of its own: what bubblewrap does, for machines that do not have it.

usage: python enter.py SPEC COMMAND ...

SPEC is JSON: ``shown``, folders and files that are visible, read-only, and where; ``links``, symbolic links
by place; ``folders``, writable file systems in memory and their bytes. The command runs as process 1 and as
nobody, with no network, no capabilities and no way to gain any. Needs Linux 5.14: mount_setattr (5.12), and
RLIMIT_NPROC counted by user namespace.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

# linux/sched.h
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_ALL_NEW = _NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP
# linux/mount.h, linux/prctl.h, linux/fcntl.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 12, 1 << 14, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MNT_DETACH, _AT_FDCWD, _AT_RECURSIVE = 2, -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# the same number on every architecture but alpha; pivot_root has no wrapper in glibc
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

NOBODY = 65534
# not /dev/zero: mapped shared, it is memory that belongs to no process
DEVICES = ("null", "full", "random", "urandom")
_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> NoReturn:
    spec, command = json.loads(arguments[0]), arguments[1:]
    _checked("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # goes when the one who started it goes
    _enter_namespaces()
    pid = os.fork()  # the first child is process 1 of the new namespace
    if pid == 0:
        _build(spec)
        _become_nobody()
        os.execve(command[0], command, dict(os.environ))  # noqa: S606 - given by the caller, no shell
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _enter_namespaces() -> None:
    """Only a process outside may write a user namespace's maps at will: a child that stays there."""
    asked, ask = os.pipe()
    parent, root = os.getpid(), os.geteuid() == 0
    helper = os.fork()
    if helper == 0:
        os.close(ask)
        os.read(asked, 1)
        _write_maps(parent, f"0 0 1\n{NOBODY} {NOBODY} 1" if root else None)
        os._exit(0)
    _checked("unshare", _ALL_NEW)
    os.write(ask, b".")
    if os.waitpid(helper, 0)[1]:
        raise OSError("cannot map users into a namespace")


def _write_maps(pid: int, privileged: str | None) -> None:
    process = Path(f"/proc/{pid}")
    if privileged is None:
        (process / "setgroups").write_text("deny")
    (process / "uid_map").write_text(privileged or f"{NOBODY} {os.geteuid()} 1")
    (process / "gid_map").write_text(privileged or f"{NOBODY} {os.getegid()} 1")


def _build(spec: dict[str, Any]) -> None:
    """Leave a root folder that holds what is shown, a few devices and the writable folders."""
    _checked("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    # a file system of our own becomes the root, with the old one in a folder of it: so nothing is hidden that
    # is still to be shown, wherever it lies
    _memory("/tmp", 1 << 20, "755")  # noqa: S108 - a mount point that every system has
    for folder in ("/tmp/old", "/tmp/new"):  # noqa: S108 - likewise
        Path(folder).mkdir()
    _pivot_root("/tmp", "/tmp/old")  # noqa: S108 - likewise
    _bind("/new", "/new")
    # first, so that they hide nothing that is shown: an environment may lie in /tmp
    for place, size in spec["folders"].items():
        _inside(place).mkdir(parents=True, exist_ok=True)
        _memory(str(_inside(place)), size, "1777")
    for path, place in spec["shown"].items():
        _show(path, place)
    for device in DEVICES:
        _show(f"/dev/{device}", f"/dev/{device}", device=True)
    for place, target in spec["links"].items():
        _inside(place).parent.mkdir(parents=True, exist_ok=True)
        _inside(place).symlink_to(target)
    _forbid_namespaces()
    _set_attributes("/new", _ATTR_RDONLY | _ATTR_NOSUID, recursive=False)
    _checked("umount2", b"/old", _MNT_DETACH)
    os.chdir("/new")
    _pivot_root(".", ".")
    _checked("umount2", b".", _MNT_DETACH)
    os.chdir(next(iter(spec["folders"])))


def _inside(path: str) -> Path:
    return Path("/new" + path)


def _show(path: str, where: str, *, device: bool = False) -> None:
    source, place = Path("/old" + path), _inside(where)
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _bind(str(source), str(place))
    _set_attributes(str(place), _ATTR_NOSUID | (0 if device else _ATTR_RDONLY | _ATTR_NODEV))


def _bind(source: str, place: str) -> None:
    _checked("mount", source.encode(), place.encode(), None, _MS_BIND | _MS_REC, None)


def _memory(place: str, size: int, mode: str) -> None:
    options = f"size={size},nr_inodes=4096,mode={mode}".encode()
    _checked("mount", b"tmpfs", place.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)


def _set_attributes(place: str, attributes: int, *, recursive: bool = True) -> None:
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr: set, clear, propagation, userns
    flags = _AT_RECURSIVE if recursive else 0
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _checked("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, place.encode(), flags, ctypes.byref(wanted), size)


def _pivot_root(new: str, old: str) -> None:
    _checked("syscall", _SYS_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode())


def _forbid_namespaces() -> None:
    """No namespaces in the namespace: in one of its own a program would have every capability again.

    That would not lead out of this one, but to more of the kernel. Containers mount /proc/sys read-only:
    there this second wall is missing.
    """
    try:
        Path("/old/proc/sys/user/max_user_namespaces").write_text("0")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


def _become_nobody() -> None:
    if os.geteuid() != NOBODY:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _checked("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # after the change of user, which clears it; capabilities go with execve, since nobody is not root
    _checked("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _checked(function: str, *arguments: Any) -> None:
    if getattr(_libc, function)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


if __name__ == "__main__":
    main(sys.argv[1:])
