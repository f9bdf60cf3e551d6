"""The kernel's calls that Python 3.11 has no name for. Each raises OSError."""

import ctypes
import os
import sys
from typing import Final

from edge.functions.launch.machine import machine

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
_NEW_LISTENER: Final = 8
_MOUNT_SETATTR: Final = 442  # from 424 on the numbers are the same for all

_libc: Final = ctypes.CDLL(None, use_errno=True)


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


def set_seccomp_filter(program: bytes, *, listen: bool = False) -> int:
    """program: packed `struct sock_filter`s. Needs no_new_privs, or root. listen: returns the descriptor on which the
    calls come that the program leaves to it, closed by exec; refused before Linux 5.0, and where a filter that is there
    already has one, as in some containers."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    rules = ctypes.create_string_buffer(program, len(program))
    whole = Program(len(program) // 8, ctypes.addressof(rules))
    if not listen:
        zero = ctypes.c_ulong(0)
        return _checked(_libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(whole), zero, zero))
    here = machine()
    if here is None:
        raise OSError(38, "not known for this processor")
    number = ctypes.c_long(here.numbers["seccomp"])
    return _checked(_libc.syscall(number, ctypes.c_long(1), ctypes.c_long(_NEW_LISTENER), ctypes.byref(whole)))


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
