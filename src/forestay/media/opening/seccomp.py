"""The list of system calls that a decoding child may still make; every other one fails with EPERM.

A filter of the kernel (https://docs.kernel.org/userspace-api/seccomp_filter.html) that needs no rights and cannot be
taken off. What is left: reading, writing and mapping what is open already, memory, time, signals to itself. Not left:
opening files, sockets, new processes and threads, signals to others. Known for x86-64 and arm64; elsewhere there is
none.
"""

import ctypes
import platform
import struct
import sys
from collections.abc import Mapping

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h: ld abs word, jeq, jge, ret
_ALLOW, _ERROR_EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_OTHER_ABI = 0x40000000  # the x32 calls of x86-64 share its architecture's number

# read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 pwrite64 readv
# writev sched_yield mremap madvise dup nanosleep getpid exit uname fcntl ftruncate gettimeofday getrlimit getrusage
# sysinfo times getuid getgid geteuid getegid sigaltstack gettid futex sched_getaffinity restart_syscall clock_gettime
# clock_getres clock_nanosleep exit_group set_robust_list prlimit64 getrandom membarrier rseq newfstatat (by which newer
# C libraries ask about a descriptor; it tells sizes and owners of files, never their contents)
_X86_64 = (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 24, 25, 28, 32, 35, 39, 60, 63, 72, 77, 96, 97, 98,
           99, 100, 102, 104, 107, 108, 131, 186, 202, 204, 219, 228, 229, 230, 231, 273, 302, 318, 324, 334,
           262)  # fmt: skip
_ARM64 = (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 67, 68, 65, 66, 124, 216, 233, 23, 101, 172, 93, 160,
          25, 46, 169, 163, 165, 179, 153, 174, 176, 175, 177, 132, 178, 98, 123, 128, 113, 114, 115, 94, 99, 261, 278,
          283, 293, 79)  # fmt: skip
_CALLS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, _X86_64),  # AUDIT_ARCH_X86_64 of linux/audit.h
    "aarch64": (0xC00000B7, _ARM64),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def program_of(machine: str) -> bytes | None:
    """Return the filter for a machine as struct sock_filter[] (linux/filter.h), None where its calls are not known."""
    known = _CALLS.get(machine)
    if known is None:
        return None
    architecture, calls = known
    steps = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_AT_LEAST, len(calls), 0, _OTHER_ABI),
        *[(_EQUAL, len(calls) - index, 0, call) for index, call in enumerate(calls)],
        (_RETURN, 0, 0, _ERROR_EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


_program = program_of(platform.machine())


def available() -> bool:
    """Tell whether this machine has a filter."""
    return sys.platform == "linux" and _program is not None


def enter(libc: ctypes.CDLL) -> bool:
    """Put the filter on, for good; False where there is none."""
    program = _program
    if program is None or sys.platform != "linux":
        return False
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    described = _Program(len(program) // 8, program)
    return libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0) == 0
