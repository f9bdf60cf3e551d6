"""Wall time of records that carry only the monotonic clock: known as soon as the gateway's clock is set. Pure.

A record says (gateway boot, monotonic ms). For each boot the offset to Unix time is kept in the stream's state; gateway
boots within one boot of the operating system share its monotonic clock, so what one learns holds for the others too.
Invariants: a clock that jumps changes what later exports are stamped with, never an order and never what is held.
What a connection has on the wire keeps its stamp.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

CLOCK: Final = "clock"
BOOTS_MAX: Final = 64
JUMP_MS: Final = 1000
SET_AFTER_S: Final = 1_600_000_000  # a clock that says less was never set

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[int, tuple[str, int]]).decode


class Clock:
    """boot: the gateway's; system_boot: of the operating system. offset 0 is unknown."""

    def __init__(self, state: Mapping[str, bytes], boot: int, system_boot: str) -> None:
        try:
            self._boots = _decode(state[CLOCK]) if CLOCK in state else {}
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._boots = {}
        self._boot, self._system_boot = boot, system_boot
        known = next((offset for system, offset in self._boots.values() if system == system_boot and offset), 0)
        self._boots[boot] = system_boot, known
        while len(self._boots) > BOOTS_MAX:
            del self._boots[min(self._boots)]
        self.offset = known
        self._changed = True
        self.is_set_anew = False  # since `changes`

    def learn(self, unix_s: float, monotonic_s: float) -> bool:
        """What both clocks say now. True: what was stamped before says no time or a wrong one."""
        offset = int((unix_s - monotonic_s) * 1000)
        if unix_s < SET_AFTER_S or abs(offset - self.offset) < JUMP_MS:
            return False
        self.offset = offset
        for boot, (system, _) in self._boots.items():
            if system == self._system_boot:
                self._boots[boot] = system, offset
        self._changed = self.is_set_anew = True
        return True

    def has_not(self, boot: int) -> bool:
        """Whether nothing was committed in this boot of the gateway. False: there was, or it is too long ago."""
        known = [one for one in self._boots if one != self._boot]
        return bool(known) and boot > min(known) and boot not in known

    def unix_ms(self, boot: int, monotonic_ms: int) -> int:
        """0: not known."""
        if boot == self._boot:
            return self.offset + monotonic_ms if self.offset else 0
        _, offset = self._boots.get(boot, ("", 0))
        return offset + monotonic_ms if offset else 0

    def age_ms(self, boot: int, monotonic_ms: int, now_ms: int) -> int:
        """How old a record is. now_ms: of the monotonic clock. Where either clock was never set, of what came before
        this boot of the operating system only how old it is at least: as long as the system is up."""
        system, offset = self._boots.get(boot, ("", 0))
        if boot == self._boot or not system or system == self._system_boot:
            return max(now_ms - monotonic_ms, 0)
        known = self.offset + now_ms - offset - monotonic_ms if offset and self.offset else 0
        return max(known, now_ms, 0)

    def changes(self) -> list[tuple[str, bytes]]:
        """What to put into the state now."""
        if not self._changed:
            return []
        self._changed = self.is_set_anew = False
        return [(CLOCK, _encode(self._boots))]
