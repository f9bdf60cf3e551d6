"""A filter of system calls: none that reach into other processes or open the kernel wide, no sockets unless granted."""

import struct
from typing import Final

from edge.functions.launch.kernel import CLONE_NEWUSER, Machine

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; the lower half of the first argument
_ALLOW: Final = 0x7FFF_0000
_FAIL: Final = 0x0005_0000
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_X32: Final = 0x4000_0000
_AF_UNIX: Final = 1

_NEVER: Final = (
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_getfd",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "mount",
    "unshare",
    "setns",
    "open_by_handle_at",
)

_MODES: Final = ("chmod", "fchmod", "fchmodat", "fchmodat2")


def program(
    machine: Machine, *, network: bool, local_sockets: bool, hold_group: bool = False, hold_modes: bool = False
) -> bytes:
    """local_sockets: AF_UNIX stays even without network. hold_group: nobody leaves the process group. hold_modes: the
    modes of files stay, wherever they are: Landlock does not see to them."""
    numbers = machine.numbers
    rules = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _FAIL | _ENOSYS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),  # x86's other numbers, of another width; no other machine has any so high
        (_RETURN, 0, 0, _FAIL | _ENOSYS),
    ]
    denied = {numbers[name]: _EPERM for name in _NEVER}
    denied[numbers["clone3"]] = _ENOSYS  # its flags cannot be seen; the C library falls back to clone
    if hold_group:
        denied |= {numbers["setsid"]: _EPERM, numbers["setpgid"]: _EPERM}
    if hold_modes:
        denied |= {numbers[name]: _EPERM for name in _MODES if name in numbers}
    for number, error in sorted(denied.items()):
        rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | error)]
    rules += [
        (_EQUAL, 0, 4, numbers["clone"]),
        (_LOAD, 0, 0, _ARGUMENT_AT),
        (_ANY_BIT, 0, 1, CLONE_NEWUSER),
        (_RETURN, 0, 0, _FAIL | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    if not network:
        rules += [
            (_EQUAL, 0, 4, numbers["socket"]),
            (_LOAD, 0, 0, _ARGUMENT_AT),
            (_EQUAL, 0, 1, _AF_UNIX if local_sockets else 0xFFFF_FFFF),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _FAIL | _EACCES),
        ]
    rules.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *rule) for rule in rules)
