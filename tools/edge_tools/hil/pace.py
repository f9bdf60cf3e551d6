"""One direction of a serial line, as arithmetic: when each byte's last bit arrives, and what noise does to it.

No I/O and no clock: every call is told the time in seconds.

Invariants:
- A byte takes ten bits (start, eight, stop). None is delivered before its last bit has arrived, and none is
  carried faster than the baud rate: the times of a burst are `start + n * byte time`, never a running sum.
- The line holds at most `room_bytes_max` bytes that wait for their turn; who has more must keep them.
- Bytes are delivered in order; delay and jitter shift them, never swap them.
"""

import math
import random
from collections import deque

import msgspec

BAUD_DEFAULT = 115_200
BAUD_MAX = 3_000_000
BAUD_MIN = 300
BITS_PER_BYTE = 10
STEP_S = 0.000_5  # bytes of a long burst are handed on together, this often
_ROOM_BYTES_MIN = 64  # the transmit FIFO of a larger UART
_ROOM_S = 0.005


class Noise(msgspec.Struct, frozen=True):
    """What is wrong with the line. Rates are chances: bit_errors a bit, byte_loss and byte_insertion a byte."""

    bit_errors: float = 0.0
    byte_loss: float = 0.0
    byte_insertion: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0


class Counts(msgspec.Struct):
    """What one direction carried. All only rise. busy_s: for how long bits were on the line."""

    bytes_in: int = 0
    bytes_out: int = 0
    busy_s: float = 0.0
    bit_errors: int = 0
    bytes_lost: int = 0
    bytes_inserted: int = 0
    bytes_unheard: int = 0
    bytes_overrun: int = 0


class _Gaps:
    """How many trials pass before the next hit of a chance: one random number a hit, not one a trial."""

    def __init__(self, rate: float, dice: random.Random) -> None:
        self._rate, self._dice = rate, dice
        self._left = self._draw()

    def _draw(self) -> int:
        if self._rate <= 0.0:
            return -1
        if self._rate >= 1.0:
            return 0
        return int(math.log(1.0 - self._dice.random()) / math.log1p(-self._rate))

    def hits(self, trials: int) -> list[int]:
        """Which of the next `trials` trials hit, as indices in order."""
        if self._left < 0:
            return []
        found: list[int] = []
        at = self._left
        while at < trials:
            found.append(at)
            at += 1 + self._draw()
        self._left = at - trials
        return found


class Wire:
    """seed: the same seed, settings and bytes give the same damage."""

    def __init__(self, baud: int = BAUD_DEFAULT, seed: str = "") -> None:
        self.counts = Counts()
        self._dice = random.Random(seed)  # noqa: S311 - noise, not a secret
        self._waiting = bytearray()
        self._start_s = 0.0
        self._sent = 0
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._delayed_until_s = 0.0
        self.set_noise(Noise())
        self.baud = baud
        self._byte_s = BITS_PER_BYTE / baud
        self.room_bytes_max = max(_ROOM_BYTES_MIN, int(_ROOM_S / self._byte_s))

    def set_baud(self, baud: int) -> None:
        """From the next byte on; what waits is carried at the new rate."""
        self._start_s += self._sent * self._byte_s
        self._sent = 0
        self.baud = baud
        self._byte_s = BITS_PER_BYTE / baud
        self.room_bytes_max = max(_ROOM_BYTES_MIN, int(_ROOM_S / self._byte_s))

    def set_noise(self, noise: Noise) -> None:
        self.noise = noise
        self._flips = _Gaps(noise.bit_errors, self._dice)
        self._losses = _Gaps(noise.byte_loss, self._dice)
        self._insertions = _Gaps(noise.byte_insertion, self._dice)
        self._damaging = bool(noise.bit_errors or noise.byte_loss or noise.byte_insertion)
        self._delay_s, self._jitter_s = noise.delay_ms / 1000, noise.jitter_ms / 1000

    def room(self) -> int:
        """How many bytes `put` takes now. 0 is the back-pressure the sender feels."""
        return self.room_bytes_max - len(self._waiting)

    def put(self, data: bytes, now_s: float) -> None:
        """data: at most `room()` bytes. An idle line starts at once, a busy one continues without a gap."""
        if not self._waiting:
            self._start_s = max(self._start_s + self._sent * self._byte_s, now_s)
            self._sent = 0
        self._waiting += data
        self.counts.bytes_in += len(data)

    def take(self, now_s: float) -> bytes:
        """The bytes that have arrived by now and were not handed out yet, with the damage done to them."""
        arrived = b""
        if self._waiting:
            due = int((now_s - self._start_s) / self._byte_s + 1e-6) - self._sent
            count = min(due, len(self._waiting))
            if count > 0:
                arrived = bytes(self._waiting[:count])
                del self._waiting[:count]
                self._sent += count
                self.counts.busy_s += count * self._byte_s
                if self._damaging:
                    arrived = self._damage(arrived)
        if self._delay_s or self._jitter_s or self._delayed:
            return self._delay(arrived, now_s)
        return arrived

    def next_s(self, now_s: float) -> float | None:
        """When `take` should be called again: the last bit of a short burst, a step into a long one. None: idle."""
        at = None
        if self._waiting:
            first_s = self._start_s + (self._sent + 1) * self._byte_s
            last_s = self._start_s + (self._sent + len(self._waiting)) * self._byte_s
            at = min(last_s, max(first_s, now_s + STEP_S))
        if self._delayed:
            return self._delayed[0][0] if at is None else min(at, self._delayed[0][0])
        return at

    def clear(self) -> int:
        """Drop what is on the way: the cable was pulled. Returns how many bytes."""
        dropped = len(self._waiting) + sum(len(chunk) for _, chunk in self._delayed)
        self._waiting.clear()
        self._delayed.clear()
        return dropped

    def _delay(self, arrived: bytes, now_s: float) -> bytes:
        if arrived:
            last_bit_s = self._start_s + self._sent * self._byte_s
            at = last_bit_s + self._delay_s + self._jitter_s * self._dice.random()
            self._delayed_until_s = max(self._delayed_until_s, at)
            self._delayed.append((self._delayed_until_s, arrived))
        out = b""
        while self._delayed and self._delayed[0][0] <= now_s:
            out += self._delayed.popleft()[1]
        return out

    def _damage(self, data: bytes) -> bytes:
        counts = self.counts
        flips = self._flips.hits(len(data) * 8)
        if flips:
            flipped = bytearray(data)
            for bit in flips:
                flipped[bit >> 3] ^= 1 << (bit & 7)
            counts.bit_errors += len(flips)
            data = bytes(flipped)
        losses = self._losses.hits(len(data))
        if losses:
            gone = set(losses)
            counts.bytes_lost += len(gone)
            data = bytes(byte for index, byte in enumerate(data) if index not in gone)
        insertions = self._insertions.hits(len(data))
        if insertions:
            counts.bytes_inserted += len(insertions)
            grown = bytearray(data)
            for index in reversed(insertions):
                grown.insert(index, self._dice.randrange(256))
            data = bytes(grown)
        return data
