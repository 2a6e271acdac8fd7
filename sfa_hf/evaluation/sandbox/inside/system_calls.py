"""System calls that no program in a sandbox may make: the rules of the filter, read by ``filter.py``.

Everything else that Linux 6.10 knows is allowed, and nothing that later kernels add. A list of what is
allowed would be easier to reason about, but it would have to know every C library and every NumPy.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

#: AUDIT_ARCH_* of linux/audit.h, and the column of the numbers below.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: mseal: the last system call of Linux 6.10, on both. Also shuts x32, whose numbers start at 0x40000000.
LAST = 462

_KEYS = {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)}
_KERNEL_SURFACE = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "io_destroy": (207, 1),
    "io_submit": (209, 2),
    "io_cancel": (210, 3),
    "io_getevents": (208, 4),
    "io_pgetevents": (333, 292),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "seccomp": (317, 277),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "remap_file_pages": (216, 234),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
}
_OTHER_PROCESSES = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
}
_FILE_SYSTEMS = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "lookup_dcookie": (212, 18),
    "ustat": (136, None),
    "sysfs": (139, None),
    "uselib": (134, None),
    "setns": (308, 268),
}
_THE_MACHINE = {
    "acct": (163, 89),
    "syslog": (103, 116),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "nfsservctl": (180, 42),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "vhangup": (153, 58),
    "_sysctl": (156, None),
    "lsm_set_self_attr": (460, 460),
}
_MESSAGES = {
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
# kernel memory that belongs to no process, so that nothing that watches processes would count it
_SHARED_MEMORY = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}

#: Always refused: number by architecture (None: it has none) and what the caller is told.
REFUSED: dict[str, tuple[tuple[int, int | None], int]] = {
    **{
        name: (numbers, errno.EPERM)
        for group in (_KEYS, _KERNEL_SURFACE, _OTHER_PROCESSES, _FILE_SYSTEMS, _THE_MACHINE, _MESSAGES)
        for name, numbers in group.items()
    },
    **{name: (numbers, errno.ENOMEM) for name, numbers in _SHARED_MEMORY.items()},
    # its flags lie in memory, where a filter cannot look; the C library then uses clone
    "clone3": ((435, 435), errno.ENOSYS),
}


@dataclass(frozen=True)
class Condition:
    """Refuses a call by one argument's low 32 bits, which are all that the kernel takes of these.

    Attributes:
        numbers: of the call, by architecture.
        argument: counted from 0.
        code: what the caller is told.
        mask: bits that are looked at.
        equals: refused if the masked value is one of these.
        unless: the other way round: refused if it is none of these.
    """

    numbers: tuple[int, int]
    argument: int
    code: int
    mask: int = 0xFFFFFFFF
    equals: tuple[int, ...] = ()
    unless: tuple[int, ...] = ()


_AF_UNIX = 1
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW* of linux/sched.h but for time's
_NEW_TIME = 0x80  # in clone these bits are a signal's
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_HUGETLB = 0x01, 0x20, 0x40000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # type into a terminal
_KILL, _SOCKET = (62, 129), (41, 198)


def conditions(*, contained: bool) -> list[Condition]:
    """Calls that are refused by their arguments.

    Args:
        contained: whether the sandbox has namespaces. Where it has none, sockets of other programs are in
            reach of AF_UNIX, and every process of its user in reach of kill(-1).
    """
    found = [
        Condition((53, 199), 0, errno.EPERM, unless=(_AF_UNIX,)),  # socketpair
        Condition((56, 220), 0, errno.EPERM, _NEW_NAMESPACES, unless=(0,)),  # clone
        Condition((272, 97), 0, errno.EPERM, _NEW_NAMESPACES | _NEW_TIME, unless=(0,)),  # unshare
        Condition(
            (9, 222),  # mmap
            3,
            errno.ENOMEM,
            _MAP_SHARED | _MAP_ANONYMOUS | _MAP_HUGETLB,
            unless=(0, _MAP_SHARED, _MAP_ANONYMOUS),
        ),
        Condition((302, 261), 0, errno.EPERM, unless=(0,)),  # prlimit64 of another process
        Condition((16, 29), 1, errno.EPERM, equals=(_TIOCSTI, _TIOCLINUX)),  # ioctl
    ]
    if contained:
        return [*found, Condition(_SOCKET, 0, errno.EPERM, unless=(_AF_UNIX,))]
    return [
        *found,
        Condition(_SOCKET, 0, errno.EPERM, mask=0, unless=(1,)),  # none at all
        Condition(_KILL, 0, errno.EPERM, equals=(0xFFFFFFFF,)),
    ]
