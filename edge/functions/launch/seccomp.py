"""A filter of system calls: none that reach into other processes or open the kernel wide, no sockets unless granted.

Where the gateway listens (seccomp_unotify(2)), the filter leaves to it what tells of a mind to break out: it refuses
all of that, with the same errors, and so does the kernel when nobody listens any more (ENOSYS)."""

import struct
from typing import Final

from edge.functions.launch.machine import Machine

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; the lower half of the first argument
_ALLOW: Final = 0x7FFF_0000
_ASK: Final = 0x7FC0_0000
_FAIL: Final = 0x0005_0000
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_NEW_USER: Final = 0x1000_0000  # CLONE_NEWUSER
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
    "mount",
    "unshare",
    "setns",
    "open_by_handle_at",
)
_PROBED: Final = ("io_uring_setup", "io_uring_enter", "io_uring_register")  # by libraries, whatever the code wants

_MODES: Final = ("chmod", "fchmod", "fchmodat", "fchmodat2")


def program(
    machine: Machine,
    *,
    network: bool,
    local_sockets: bool,
    hold_group: bool = False,
    hold_modes: bool = False,
    ask: bool = False,
) -> bytes:
    """local_sockets: AF_UNIX stays even without network. hold_group: nobody leaves the process group. hold_modes: the
    modes of files stay, wherever they are: Landlock does not see to them. ask: the listener refuses what `refusal`
    knows; of sockets all but AF_UNIX, which the C library makes by itself when it looks for a name service."""
    numbers = machine.numbers
    rules = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _FAIL | _ENOSYS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),  # x86's other numbers, of another width; no other machine has any so high
        (_RETURN, 0, 0, _FAIL | _ENOSYS),
    ]
    denied = {numbers[name]: _ASK if ask else _FAIL | _EPERM for name in _NEVER}
    denied |= {numbers[name]: _FAIL | _EPERM for name in _PROBED}
    denied[numbers["clone3"]] = _FAIL | _ENOSYS  # its flags cannot be seen; the C library falls back to clone
    if hold_group:
        denied |= {numbers["setsid"]: _FAIL | _EPERM, numbers["setpgid"]: _FAIL | _EPERM}
    if hold_modes:
        denied |= {numbers[name]: _FAIL | _EPERM for name in _MODES if name in numbers}
    for number, verdict in sorted(denied.items()):
        rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, verdict)]
    rules += [
        (_EQUAL, 0, 4, numbers["clone"]),
        (_LOAD, 0, 0, _ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _NEW_USER),
        (_RETURN, 0, 0, _FAIL | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    if not network:
        rules += [
            (_EQUAL, 0, 4, numbers["socket"]),
            (_LOAD, 0, 0, _ARGUMENT_AT),
            (_EQUAL, 0, 1, _AF_UNIX),
            (_RETURN, 0, 0, _ALLOW if local_sockets else _FAIL | _EACCES),
            (_RETURN, 0, 0, _ASK if ask else _FAIL | _EACCES),
        ]
    rules.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *rule) for rule in rules)


def refusal(machine: Machine, number: int) -> tuple[int, str]:
    """The error of a call that `program` leaves to the listener, and its name."""
    if number == machine.numbers["socket"]:
        return _EACCES, "socket"
    name = next((name for name in _NEVER if machine.numbers[name] == number), f"call {number}")
    return _EPERM, name
