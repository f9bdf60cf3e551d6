"""The kernel's calls that Python 3.11 has no name for. Each raises OSError."""

import ctypes
import os
import sys
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000
_CLONE_PARENT: Final = 0x8000
_SIGCHLD: Final = 17

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
MNT_DETACH: Final = 2

PR_SET_PDEATHSIG: Final = 1
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38

_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100
_MOUNT_SETATTR: Final = 442  # from 424 on the numbers are the same for all

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Machine:
    """What differs by the processor: audit's name for it (linux/audit.h) and the numbers of its system calls.

    Of this interpreter, not of the kernel: a 32-bit system may run on a 64-bit kernel."""

    def __init__(self, audit: int, numbers: dict[str, int]) -> None:
        self.audit, self.numbers = audit, numbers


_ALIKE: Final = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "clone3": 435,
    "pidfd_getfd": 438,
    "fchmodat2": 452,
}
_NAMES: Final = (
    "clone",
    "pivot_root",
    "socket",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "mount",
    "unshare",
    "setns",
    "setsid",
    "setpgid",
    "open_by_handle_at",
    "chmod",
    "fchmod",
    "fchmodat",
)


def _numbers(*numbers: int) -> dict[str, int]:
    """0: this processor has no such call."""
    return {name: number for name, number in zip(_NAMES, numbers, strict=True) if number} | _ALIKE


_MACHINES: Final = {
    "x86_64-linux-gnu": Machine(
        0xC000_003E,
        _numbers(
            56, 155, 41, 101, 310, 311, 312, 250, 248, 249, 321, 298, 323, 165, 272, 308, 112, 109, 304, 90, 91, 268
        ),
    ),
    "aarch64-linux-gnu": Machine(
        0xC000_00B7,
        _numbers(220, 41, 198, 117, 270, 271, 272, 219, 217, 218, 280, 241, 282, 40, 97, 268, 157, 154, 265, 0, 52, 53),
    ),
    "arm-linux-gnueabihf": Machine(
        0x4000_0028,
        _numbers(
            120, 218, 281, 26, 376, 377, 378, 311, 309, 310, 386, 364, 388, 21, 337, 375, 66, 57, 371, 15, 94, 333
        ),
    ),
}


def machine() -> Machine | None:
    """None: a processor whose numbers are not known here."""
    return _MACHINES.get(getattr(sys.implementation, "_multiarch", ""))


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    result: int = _libc.syscall(
        ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    )
    return _checked(result)


def _checked(result: int, what: str | None = None) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def prctl(option: int, value: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def set_seccomp_filter(program: bytes) -> None:
    """program: packed `struct sock_filter`s. Needs no_new_privs, or root."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    rules = ctypes.create_string_buffer(program, len(program))
    whole = Program(len(program) // 8, ctypes.addressof(rules))
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(whole), zero, zero))


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags))


def fork_beside() -> int:
    """As os.fork, but the new process is a child of this one's parent. Raises OSError also where that is not known."""
    here = machine()
    if here is None:
        raise OSError(38, "not known for this processor")
    return syscall(here.numbers["clone"], _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    _checked(
        _libc.mount(_encoded(source), _encoded(target), _encoded(kind), ctypes.c_ulong(flags), _encoded(data)), target
    )


def unmount(target: str) -> None:
    _checked(_libc.umount2(_encoded(target), MNT_DETACH), target)


def set_mount_flags(target: str, flags: int, *, recursive: bool) -> None:
    """Adds flags (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC) to the mount, with recursive to all below it too."""
    attributes = ctypes.create_string_buffer(flags.to_bytes(8, sys.byteorder) + bytes(24), 32)
    path = ctypes.create_string_buffer(os.fsencode(target))
    try:
        syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE if recursive else 0, attributes, 32)
    except OSError as error:
        if error.errno not in (38, 1):  # before Linux 5.12, or kept from us by a filter: only the top mount then
            raise
        kept = os.statvfs(target).f_flag & 0xF
        mount(None, target, None, MS_REMOUNT | MS_BIND | flags | kept)


def pivot_root(new: str, old: str) -> None:
    here = machine()
    if here is None:
        raise OSError(38, "not known for this processor")
    buffers = [ctypes.create_string_buffer(os.fsencode(path)) for path in (new, old)]
    syscall(here.numbers["pivot_root"], *buffers)


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
