"""System calls that the filter refused, heard from the kernel (seccomp_unotify(2)) whatever code made them.

Invariants: whatever is heard of is refused, with the error that the filter would give by itself; nothing is let
through from here, and nothing of the program's memory is read. Nothing blocks: a call is taken when the kernel says
that one waits, and nobody else takes any. A program that asks faster than CALLS_PER_S is heard no more: the descriptor
is closed, and the kernel refuses by itself (ENOSYS), as it does when the gateway has gone."""

import asyncio
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Final, Literal

from edge.functions.allowance import Allowance
from edge.functions.launch.machine import machine
from edge.functions.launch.seccomp import refusal

CALLS_PER_S: Final = 20.0
CALLS_BURST: Final = 64.0
TOLD_MAX: Final = 16

# linux/seccomp.h, the same for all machines that are known here
_RECEIVE: Final = 0xC050_2100
_SEND: Final = 0xC018_2101
_CALL: Final = struct.Struct("=QIIiIQ6Q")  # id, pid, flags; then number, machine, address, arguments
_ANSWER: Final = struct.Struct("=QqiI")

Refused = Literal["network", "privileges"]
Tell = Callable[[Refused, str], None]


class Refusals:
    """Of one program with all it begins. tell: on the loop's thread, each thing once, TOLD_MAX at most."""

    def __init__(self, fd: int, tell: Tell) -> None:
        """fd: taken over."""
        self._fd, self._tell = fd, tell
        self._told: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._allowance = Allowance(self._loop.time(), per_s=CALLS_PER_S, burst=CALLS_BURST)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._loop.add_reader(fd, self._readable)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        if not any(events & select.POLLIN for _, events in self._poll.poll(0)):
            return self.close()  # all of it has ended: to receive now would wait for ever
        call = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self._fd, _RECEIVE, call)
        except FileNotFoundError:  # who asked has ended meanwhile, or has been interrupted and asks again
            return None
        except OSError:
            return self.close()
        id_, _, _, number, _, _, argument, *_ = _CALL.unpack(call)
        here = machine()
        error, name = refusal(here, number) if here is not None else (1, f"call {number}")
        try:
            fcntl.ioctl(self._fd, _SEND, _ANSWER.pack(id_, 0, -error, 0))
        except FileNotFoundError:
            pass
        except OSError:
            self.close()
        what: Refused = "network" if name == "socket" else "privileges"
        self._say(what, f"make a socket of {_family(argument & 0xFFFF_FFFF)}" if what == "network" else name)
        if self._allowance.spend(1, self._loop.time()):
            self.close()
            self._tell(what, f"ask more than {CALLS_PER_S:g} times a second: the rest is refused and not told")
        return None

    def _say(self, what: Refused, detail: str) -> None:
        if detail not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(detail)
            self._tell(what, detail)


def _family(number: int) -> str:
    try:
        return socket.AddressFamily(number).name
    except ValueError:
        return f"family {number}"
