"""A seccomp filter: which system calls the kernel still answers, for this process and all that it starts.

Classic BPF, in the kernel's own encoding (linux/filter.h, Documentation/userspace-api/seccomp_filter.rst), so
that it needs no library beside Python, in a box where there may be none.
"""

from __future__ import annotations

import ctypes
import errno
import os

from sfa_hf.evaluation.sandbox.inside.system_calls import ARCHITECTURES, LAST, REFUSED, Condition, conditions

# linux/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
# BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_JMP|JEQ|K, BPF_JMP|JGT|K, BPF_RET|K
_LOAD, _AND, _EQUAL, _GREATER, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
# struct seccomp_data: nr, arch, instruction_pointer (8 bytes), args (8 bytes each; low half first)
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

#: code, jump if true, jump if false, constant: struct sock_filter
Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    """What linux/filter.h calls struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def load_filter(*, contained: bool) -> None:
    """Put the filter on this process, for good; it must have no-new-privs.

    Raises:
        OSError: the kernel has no seccomp, or refuses; or there is no table for this machine's architecture.
    """
    code = b"".join(
        word.to_bytes(2, "little") + bytes((yes, no)) + constant.to_bytes(4, "little")
        for word, yes, no, constant in program(os.uname().machine, contained=contained)
    )
    held = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "cannot filter system calls")


def program(machine: str, *, contained: bool) -> list[Instruction]:
    """The filter's instructions for an architecture, as ``uname -m`` names it."""
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    architecture, column = ARCHITECTURES[machine]
    found = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),  # other calling conventions have other numbers
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, 1, LAST),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for numbers, code in REFUSED.values():
        number = numbers[column]
        if number is not None:
            found += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | code)]
    for condition in conditions(contained=contained):
        checks = _checks(condition)
        found += [(_EQUAL, 0, len(checks), condition.numbers[column]), *checks]
    return [*found, (_RETURN, 0, 0, _ALLOW)]


def _checks(condition: Condition) -> list[Instruction]:
    """From the argument to a decision, one way or the other: the call's number is lost behind it."""
    values = condition.equals or condition.unless
    refuse, allow = (_RETURN, 0, 0, _ERRNO | condition.code), (_RETURN, 0, 0, _ALLOW)
    found, otherwise = (refuse, allow) if condition.equals else (allow, refuse)
    tests = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * condition.argument)
    return [load, (_AND, 0, 0, condition.mask), *tests, otherwise, found]
