"""What differs by the processor, for the launcher and for who hears of what its filter refused."""

import sys
from typing import Final


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
    "seccomp",
)


def _numbers(*numbers: int) -> dict[str, int]:
    """0: this processor has no such call."""
    return {name: number for name, number in zip(_NAMES, numbers, strict=True) if number} | _ALIKE


MACHINES: Final = {
    "x86_64-linux-gnu": Machine(
        0xC000_003E,
        _numbers(
            56,
            155,
            41,
            101,
            310,
            311,
            312,
            250,
            248,
            249,
            321,
            298,
            323,
            165,
            272,
            308,
            112,
            109,
            304,
            90,
            91,
            268,
            317,
        ),
    ),
    "aarch64-linux-gnu": Machine(
        0xC000_00B7,
        _numbers(
            220, 41, 198, 117, 270, 271, 272, 219, 217, 218, 280, 241, 282, 40, 97, 268, 157, 154, 265, 0, 52, 53, 277
        ),
    ),
    "arm-linux-gnueabihf": Machine(
        0x4000_0028,
        _numbers(
            120, 218, 281, 26, 376, 377, 378, 311, 309, 310, 386, 364, 388, 21, 337, 375, 66, 57, 371, 15, 94, 333, 383
        ),
    ),
}


def machine() -> Machine | None:
    """None: a processor whose numbers are not known here."""
    return MACHINES.get(getattr(sys.implementation, "_multiarch", ""))
