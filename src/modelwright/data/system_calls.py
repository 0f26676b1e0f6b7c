"""A filter of system calls for a process that is to compute and nothing else (Linux, seccomp).

The kernel refuses every call that is not listed here with EPERM, for good and for every thread of
the process. What is listed reads and writes open files, manages memory of the process's own, tells
the time, waits and ends. So nothing is opened, made, renamed or deleted, no socket, no child, no
signal to others, and no limit is raised; and that does not depend on what Python allows.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# Name: number on x86-64 and on 64-bit ARM (-1: there is no such call).
ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, -1),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "select": (23, -1),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "times": (100, 153),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "time": (201, -1),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # SECCOMP_RET_*
_NO_NEW_PRIVS, _SECCOMP, _FILTER, _DEATH = 38, 22, 2, 1  # of prctl


def _step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction of a classic BPF program: struct sock_filter."""
    return struct.pack("HBBI", code, yes, no, k)


def program(machine: str) -> bytes:
    """The filter as BPF instructions, eight bytes each.

    Raises:
        OSError: there is no such filter for this kind of processor.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no filter of system calls for a processor {machine!r}")
    column, audited = _MACHINES[machine]
    numbers = [n[column] for n in ALLOWED.values() if n[column] >= 0]
    steps = [_step(_LOAD, 4), _step(_EQUAL, audited, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, 0)]
    steps += [_step(_EQUAL, n, len(numbers) - i, 0) for i, n in enumerate(numbers)]
    steps += [_step(_RETURN, _REFUSE | errno.EPERM), _step(_RETURN, _ALLOW)]
    return b"".join(steps)


def confine(signal_at_parents_end: int) -> None:
    """Put the filter on this process; it is ended by a signal when its parent ends.

    Raises:
        OSError: the system has none, or refuses it.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"no filter of system calls on {sys.platform}; Linux has one")
    steps = program(platform.machine())
    kept = ctypes.create_string_buffer(steps, len(steps))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    given = Program(len(steps) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_DEATH, ctypes.c_ulong(signal_at_parents_end)),
        (_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)),
        (_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(given)),
    ):
        if libc.prctl(*call):
            number = ctypes.get_errno()
            raise OSError(number, f"the filter of system calls was refused: {os.strerror(number)}")
