"""What a program sees of the system: the interpreter, its libraries, and nothing of anyone's."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Where the code of this package's ``inside`` folder lies in a sandbox.
CODE = "/sandbox"
#: The writable folder, empty at the start; home, current and temporary folder in one.
SCRATCH = "/tmp"  # noqa: S108 - inside the sandbox, a file system of its own
PACKAGE = "sfa_hf/evaluation/sandbox/inside"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": SCRATCH,
    "TMPDIR": SCRATCH,
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # sets in one order, run after run
    # libraries that start a thread a core, or reserve memory a thread, would meet their limits at once
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True)
class View:
    """Files and folders that stay visible, read-only, at their own places; symbolic links by place."""

    shown: tuple[str, ...]
    links: dict[str, str]


@cache
def system_view() -> View:
    """System libraries and this interpreter with its packages; no other folder of /home, /root, /etc, ..."""
    top = [Path("/bin"), Path("/lib"), Path("/lib64"), Path("/lib32"), Path("/sbin")]
    links = {str(path): str(path.readlink()) for path in top if path.is_symlink()}
    wanted = ["/usr", *(str(path) for path in top if not path.is_symlink()), *_interpreter()]
    wanted += ["/etc/ld.so.cache", "/etc/alternatives"]  # how shared libraries are found
    existing = sorted({path for path in wanted if Path(path).exists()})
    outer = [path for path in existing if not any(path.startswith(f"{other}/") for other in existing)]
    return View(tuple(outer), {**links, "/dev/shm": SCRATCH})  # noqa: S108 - a link's place in the sandbox


def interpreter() -> str:
    """The interpreter itself, past the symbolic links of a virtual environment."""
    return os.path.realpath(sys.executable)


def site_folders() -> list[str]:
    """Where installed packages lie, which a program may import as it may elsewhere."""
    return sorted({sysconfig.get_path(name) for name in ("purelib", "platlib")})


def _interpreter() -> list[str]:
    # of a prefix only these: it may be a home folder
    prefixes = {sys.base_prefix, sys.base_exec_prefix, str(Path(interpreter()).parent.parent)}
    folders = [os.path.join(prefix, part) for prefix in prefixes for part in ("bin", "lib", "lib64")]  # noqa: PTH118
    return [*folders, *site_folders()]
