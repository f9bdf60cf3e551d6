"""Landlock: the process gives up all files but these, and with newer kernels TCP, sockets and signals of others.

Works without privileges. Documentation/userspace-api/landlock.rst of the kernel."""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from edge.functions.launch import kernel
from edge.functions.launch.order import Access

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_BITS_BY_VERSION: Final = {1: 13, 2: 14, 3: 15, 4: 15}  # 5 and later: 16
_TCP: Final = 0b11
_OTHERS_SOCKETS_AND_SIGNALS: Final = 0b11


def version() -> int:
    """0: the kernel has none."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


class Ruleset:
    """Rules are added while the paths can still be opened; `apply` binds the process and all it starts."""

    def __init__(self, *, network: bool) -> None:
        """Raises OSError when there is no Landlock."""
        self.version = version()
        self.all = (1 << _FILE_BITS_BY_VERSION.get(self.version, 16)) - 1
        fields = [self.all]
        if self.version >= 4:
            fields.append(0 if network else _TCP)
        if self.version >= 6:
            fields.append(_OTHERS_SOCKETS_AND_SIGNALS)
        packed = struct.pack(f"={len(fields)}Q", *fields)
        self._fd = kernel.syscall(_CREATE_RULESET, ctypes.create_string_buffer(packed, len(packed)), len(packed), 0)

    def allow(self, paths: Iterable[tuple[str, Access]]) -> None:
        """What is not there is passed over."""
        for path, access in paths:
            if access == "hide":
                continue
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            bits = self._bits(access)
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                bits &= _OF_A_FILE
            rule = struct.pack("=Qi", bits & self.all, fd)
            try:
                kernel.syscall(_ADD_RULE, self._fd, 1, ctypes.create_string_buffer(rule, len(rule)), 0)
            finally:
                os.close(fd)

    def _bits(self, access: Access) -> int:
        if access == "write":
            return self.all & ~(_MAKE_CHAR | _MAKE_BLOCK)
        return _READ_DIR if access == "list" else _READ

    def apply(self) -> None:
        """no_new_privs must be set."""
        kernel.syscall(_RESTRICT_SELF, self._fd, 0)
        os.close(self._fd)
