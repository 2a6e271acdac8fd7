"""Programs that ask the kernel for what a program under test has no use for."""

from __future__ import annotations

import os

from hostile_programs import LIBC, REFUSED, RIGHT, Hostile

from sfa_hf.evaluation.sandbox.inside import system_calls

_COLUMN = system_calls.ARCHITECTURES[os.uname().machine][1]
# the error number of a system call; 0 if it worked
_ASK = LIBC + "def ask(*words):\n    return ctypes.get_errno() if libc.syscall(*words) == -1 else 0\n"
_MAP = (
    LIBC
    + "libc.mmap.restype = ctypes.c_void_p\n"
    + "def refuses(flags):\n"
    + "    return libc.mmap(None, ctypes.c_size_t(1 << 20), 3, flags, -1, 0) == ctypes.c_void_p(-1).value\n"
)


def _number(name: str) -> int:
    numbers, _ = system_calls.REFUSED[name]
    return numbers[_COLUMN] or 0


def _refused(name: str, *arguments: object, code: int = 1) -> Hostile:
    """A call that is answered with ``code``: EPERM, unless something else is said."""
    words = ", ".join(map(str, (_number(name), *arguments)))
    return Hostile(f"{_ASK}refused = ask({words}) == {code}\n{REFUSED}", "passed")


def _socket(family: int, kind: int = 1) -> Hostile:
    return Hostile(f"import socket\nsocket.socket({family}, {kind})\n", "forbidden", "PermissionError")


_EVERY = [
    (numbers[_COLUMN], code)
    for numbers, code in system_calls.REFUSED.values()
    if numbers[_COLUMN] is not None
]

SYSTEM_CALLS: dict[str, Hostile] = {
    "every system call that is shut": Hostile(
        f"{_ASK}refused = all(ask(number, 0, 0, 0, 0, 0) == code for number, code in {_EVERY})\n{REFUSED}",
        "passed",
    ),
    "every system call of later kernels": Hostile(
        f"{_ASK}refused = all(ask(number, 0, 0, 0, 0, 0) == 38 for number in range(463, 999))\n{REFUSED}",
        "passed",
    ),
    # ----------------------------------------------------------------------------------------------- keys
    "leaves a key": _refused("add_key", "b'user'", "b'left'", "b'text'", 4, -3),
    "reads a key": _refused("request_key", "b'user'", "b'left'", "None", -3),
    "lists its session's keys": _refused("keyctl", 11, -3, "None", 0),
    "joins another's keyring": _refused("keyctl", 1, "b'shared'"),
    # ------------------------------------------------------------------- memory that belongs to no process
    "memory by System V": _refused("shmget", 0, "ctypes.c_size_t(1500 << 20)", 0o1600, code=12),
    "memory by many segments of System V": Hostile(
        f"{_ASK}taken = [ask({_number('shmget')}, key, 1 << 20, 0o1600) for key in range(1, 999)]\n"
        f"refused = set(taken) == {{12}}\n{REFUSED}",
        "passed",
    ),
    "memory by memfd": Hostile(
        "import os\nfor number in range(60):\n"
        "    held = os.memfd_create(str(number))\n    os.truncate(held, 25 << 20)\n" + RIGHT,
        "out_of_memory",
    ),
    "secret memory": _refused("memfd_secret", 0, code=12),
    "shared memory": Hostile("import mmap\nheld = mmap.mmap(-1, 1500 << 20)\n" + RIGHT, "out_of_memory"),
    "shared memory, a page kept of each": Hostile(
        _MAP + "refused = refuses(0x21) and refuses(0x23)\n" + REFUSED, "passed"
    ),
    "shared zeros": Hostile(
        "import mmap\n"
        "with open('/dev/zero', 'r+b') as file:\n    held = mmap.mmap(file.fileno(), 1500 << 20)\n",
        "failed",
        "FileNotFoundError",
    ),
    "huge pages": Hostile(_MAP + "refused = refuses(0x40022)\n" + REFUSED, "passed"),
    "message queues": _refused("msgget", 0, 0o1600),
    "semaphores of System V": _refused("semget", 0, 9, 0o1600),
    "message queues of POSIX": _refused("mq_open", "b'queue'", 0o102, 0o600, "None"),
    # ------------------------------------------------------------------------------------------ sockets
    "socket to the host (AF_VSOCK)": _socket(40),
    "socket to the kernel (AF_NETLINK)": _socket(16, 3),
    "raw packets (AF_PACKET)": _socket(17, 3),
    "crypto of the kernel (AF_ALG)": _socket(38, 5),
    "datagrams": _socket(2, 2),
    "datagrams of IPv6": _socket(10, 2),
    "Bluetooth": _socket(31, 3),
    "a pair of sockets of another kind": Hostile(
        "import socket\nsocket.socketpair(30)\n", "forbidden", "PermissionError"
    ),
    # ---------------------------------------------------------------------- wide doors into the kernel
    "io_uring": _refused("io_uring_setup", 8, "ctypes.create_string_buffer(120)"),
    "io_uring of another": _refused("io_uring_enter", 3, 1, 1, 0, "None", 0),
    "asynchronous files": _refused("io_setup", 8, "ctypes.create_string_buffer(8)"),
    "BPF": _refused("bpf", 0, "ctypes.create_string_buffer(72)", 72),
    "performance counters": _refused("perf_event_open", "ctypes.create_string_buffer(112)", 0, -1, -1, 0),
    "page faults of its own": _refused("userfaultfd", 1),
    "watches every file": _refused("fanotify_init", 0, 0),
    "old layout of addresses": _refused("personality", 0x0040000),
    "a filter of its own": _refused("seccomp", 1, 0, "None"),
    "system calls of x32": Hostile(_ASK + "refused = ask(0x40000027) == 38\n" + REFUSED, "passed"),
    "system calls of 32 bits": Hostile(
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"  # getpid by int 0x80
        "where = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(where)()\n",
        "crashed",
        "SIGSYS" if os.uname().machine == "x86_64" else "",
    ),
    # -------------------------------------------------------------------------- namespaces, files, machine
    "user namespace by clone": Hostile(
        "import os\n"
        + _ASK
        + f"refused = ask({(56, 220)[_COLUMN]}, 0x10000011, 0, 0, 0, 0) == 1\n"
        + REFUSED,
        "passed",
    ),
    "user namespace by clone3": _refused("clone3", "ctypes.create_string_buffer(88)", 88, code=38),
    "network namespace": Hostile(
        _ASK + f"refused = ask({(272, 97)[_COLUMN]}, 0x40000000) == 1\n" + REFUSED, "passed"
    ),
    "another's namespace": _refused("setns", 0, 0),
    "file systems by the new calls": _refused("fsopen", "b'tmpfs'", 0),
    "copies a tree of mounts": _refused("open_tree", -100, "b'/'", 1),
    "files by handle": _refused("open_by_handle_at", -100, "ctypes.create_string_buffer(64)", 0),
    "another root": Hostile("import os\nos.chroot('/tmp')\n", "forbidden"),
    "a device file": Hostile("import os\nos.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))\n", "forbidden"),
    "descriptors of its parent": Hostile(
        _ASK
        + f"held = os.pidfd_open(os.getppid())\nrefused = ask({_number('pidfd_getfd')}, held, 1, 0) == 1\n"
        f"{REFUSED}",
        "passed",
    ),
    "memory of its parent": _refused("process_vm_readv", "os.getppid()", 0, 0, 0, 0, 0),
    "is traced by its parent": _refused("ptrace", 0, 0, 0, 0),
    "another kernel": _refused("kexec_load", 0, 0, "None", 0),
    "a module of the kernel": _refused("init_module", "None", 0, "b''"),
    "changes the clock": Hostile("import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)\n", "forbidden"),
    "changes the host's name": Hostile("import socket\nsocket.sethostname('mine')\n", "forbidden"),
    "types into a terminal": Hostile("import fcntl\nfcntl.ioctl(0, 0x5412, b'x')\n", "forbidden"),
}
