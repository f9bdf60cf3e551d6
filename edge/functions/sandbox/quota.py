"""The disk's quota of a user, where its file system keeps one: the only bound on a folder that holds at every write.

Set for a user that is one function's alone. Needs root, Linux 5.14 and a file system with user quotas switched on."""

import ctypes
import os
import sys
from typing import Final

_QUOTACTL_FD: Final = 443  # from 424 on the numbers are the same for all
_USER: Final = 0
_SET: Final = 0x80_0008
_STATE: Final = 0x5805  # Q_XGETQSTAT, which all file systems answer
_ENFORCED: Final = 2
_BLOCK_BYTES: Final = 1024
_LIMITS: Final = 1 | 4  # of space and of inodes
_STATE_BYTES: Final = 256  # more than a struct fs_quota_stat

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Quota(ctypes.Structure):
    """struct if_dqblk; 0 in a limit is none."""

    _fields_ = [
        ("space_hard", ctypes.c_uint64),
        ("space_soft", ctypes.c_uint64),
        ("space_used", ctypes.c_uint64),
        ("inodes_hard", ctypes.c_uint64),
        ("inodes_soft", ctypes.c_uint64),
        ("inodes_used", ctypes.c_uint64),
        ("space_grace", ctypes.c_uint64),
        ("inodes_grace", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    ]


def set_quota(folder: str, uid: int, bytes_max: int, files_max: int) -> bool:
    """For all that this user has on the folder's file system. Says whether it holds there."""
    quota = _Quota(space_hard=bytes_max // _BLOCK_BYTES, inodes_hard=files_max, valid=_LIMITS)
    state = ctypes.create_string_buffer(_STATE_BYTES)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _call(fd, _STATE, 0, state) and _is_enforced(state.raw) and _call(fd, _SET, uid, ctypes.byref(quota))
    finally:
        os.close(fd)


def _is_enforced(state: bytes) -> bool:
    """Of struct fs_quota_stat the second field, an unsigned short: counted alone is not held."""
    return bool(int.from_bytes(state[2:4], sys.byteorder) & _ENFORCED)


def _call(fd: int, command: int, uid: int, into: object) -> bool:
    return bool(_libc.syscall(_QUOTACTL_FD, fd, command << 8 | _USER, uid, into) == 0)
