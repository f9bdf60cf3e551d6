"""The serial wire: bytes in, frames, log text and SMP console lines out. Pure.

The stream is segments separated by 00. A segment that is COBS(content ‖ CRC-32, little-endian) is a frame; anything
else is SMP console lines (06 09 or 04 14 up to LF), log text, or one rejection with a reason.

Invariants: every byte is read once; what comes out does not depend on where the reads cut the stream; a reader holds
at most one unfinished segment no longer than the stuffed form of its cap, and bounded lines nobody has taken yet;
damage costs the segment it hit, as a frame begins anew after every 00.
"""

import re
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Final

CONTENT_BYTES_MAX: Final = 2048
CHANNELS: Final = frozenset({0x01, 0x02, 0x03, 0x05})
REASONS: Final = ("too_short", "too_long", "bad_cobs", "bad_crc", "timeout", "unknown_channel")

# Of lines nobody has taken; past these the oldest lines are dropped and counted.
TEXT_BYTES_HELD_MAX: Final = 65536
SMP_BYTES_HELD_MAX: Final = 65536
SAMPLE_SEGMENTS: Final = 8
SAMPLE_BYTES: Final = 64

_CRC_BYTES = 4
# Of an unstuffed segment with its overhead byte; made once, as a slice written out is built anew each time.
_CONTENT = slice(1, -_CRC_BYTES)
_pack_crc = struct.Struct("<I").pack
# What a line takes in memory beside its characters.
_LINE_COST_BYTES = 64
# crc32(x ‖ its own CRC-32, little-endian) for every x.
_RESIDUE = 0x2144DF1C
# crc32(b"\0" + x, _BEFORE_ZERO) == crc32(x): the overhead byte stays in front of the content, and nothing is copied.
_BEFORE_ZERO = 0x0F6A7026
_TEXT = bytes([*range(0x20, 0x7F), *range(0x80, 0x100), 0x09, 0x0A, 0x0D, 0x1B])
_CONTROL = re.compile(r"[\x80-\x9f]")
_SMP_STARTS = (b"\x06\x09", b"\x04\x14")
_CODES = [bytes((code,)) for code in range(256)]
# A feed longer than this is taken in pieces, so that what is split at once stays bounded.
_PIECE_BYTES = 65536


class FrameReader:
    """Splits one port's byte stream. content_bytes_max: channel byte included; channels: those served, never 0."""

    def __init__(self, content_bytes_max: int = CONTENT_BYTES_MAX, channels: frozenset[int] = CHANNELS) -> None:
        self.frames = 0
        self.rejected: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.sample: deque[tuple[str, bytes]] = deque(maxlen=SAMPLE_SEGMENTS)
        self.text_lines_dropped = 0
        self.smp_lines_dropped = 0
        self._channels = channels
        self._decoded_max = content_bytes_max + _CRC_BYTES
        self._stuffed_max = self._decoded_max + 1 + self._decoded_max // 254
        # Below this a segment has no block of 254, so that only its size need be looked at.
        self._plain_size = min(255, self._decoded_max + 2)
        self._held = b""
        self._skipping = False
        self._text: deque[str] = deque()
        self._text_bytes = 0
        self._smp: deque[bytes] = deque()
        self._smp_bytes = 0

    @property
    def pending(self) -> bool:
        """Whether a segment is unfinished, so that the inter-byte timeout should run."""
        return bool(self._held) or self._skipping

    def feed(self, data: bytes) -> list[bytes]:
        """data: any length, may cut a frame anywhere. Returns whole frames; bad ones are counted, never raised."""
        if len(data) > _PIECE_BYTES:
            pieces = range(0, len(data), _PIECE_BYTES)
            return [content for at in pieces for content in self.feed(data[at : at + _PIECE_BYTES])]
        segments = data.split(b"\0")
        if self._skipping:
            if len(segments) == 1:
                return []
            self._skipping = False
            segments[0] = b""
        elif self._held:
            segments[0] = self._held + segments[0]
        tail = segments.pop()
        contents: list[bytes] = []
        plain_size, channels, crc32 = self._plain_size, self._channels, zlib.crc32
        for segment in filter(None, segments):
            size = len(segment)
            if size < plain_size:
                decoded = bytearray(segment)
                at = 0
                while at < size:
                    code = decoded[at]
                    decoded[at] = 0
                    at += code
                # No three bytes or fewer have the residue, and the four that have it begin with channel 0.
                if at == size and crc32(decoded, _BEFORE_ZERO) == _RESIDUE and decoded[1] in channels:
                    contents.append(bytes(decoded)[_CONTENT])
                    continue
            content = self._difficult(segment)
            if content:
                contents.append(content)
        self.frames += len(contents)
        self._hold(tail)
        return contents

    def expire(self) -> list[bytes]:
        """The inter-byte timeout has passed: close the unfinished segment, which may be a frame but for its 00."""
        held, self._held, self._skipping = self._held, b"", False
        content = self._difficult(held, "timeout") if held else b""
        if not content:
            return []
        self.frames += 1
        return [content]

    def take_text(self) -> list[str]:
        """The log lines since the last call, without their line ends; escape sequences are left in."""
        lines = list(self._text)
        self._text.clear()
        self._text_bytes = 0
        return lines

    def take_smp(self) -> list[bytes]:
        """The SMP console lines since the last call, each with its start and its LF."""
        lines = list(self._smp)
        self._smp.clear()
        self._smp_bytes = 0
        return lines

    def _hold(self, tail: bytes) -> None:
        """Keep the unfinished segment, and of it only what has to wait for its end."""
        if tail[:2] in _SMP_STARTS:
            tail = self._smp_first(tail)
        if len(tail) > self._stuffed_max:
            rest = self._overlong(tail)
            self._skipping = rest is None
            tail = rest or b""
        self._held = tail

    def _difficult(self, segment: bytes, because: str = "") -> bytes:
        """The content of a long frame; b'' for what is no frame, sorted and counted, as `because` if given."""
        if segment[:2] in _SMP_STARTS:
            segment = self._smp_first(segment)
        if len(segment) > self._stuffed_max:
            segment = self._overlong(segment) or b""
        if not segment:
            return b""
        decoded, reason = _unstuff(segment)
        if not reason:
            if len(decoded) > self._decoded_max:
                self._reject("too_long", segment)
            elif decoded[0] not in self._channels:
                self._reject("unknown_channel", segment)
            else:
                return decoded[:-_CRC_BYTES]
        elif not self._lines(segment):
            self._reject(because or reason, segment)
        return b""

    def _smp_first(self, segment: bytes) -> bytes:
        """What is left after the SMP lines a segment begins with: stock tools send no 00, so those wait for none."""
        at = 0
        while segment.startswith(_SMP_STARTS, at):
            end = segment.find(b"\n", at, at + self._stuffed_max) + 1
            if not end:
                break
            self._keep_smp(segment[at:end])
            at = end
        return segment[at:] if at else segment

    def _overlong(self, segment: bytes) -> bytes | None:
        """What is left of a segment past the cap when its whole lines of text and SMP are handed on; None: rejected.

        A board that prints without ever sending a frame is heard this way.
        """
        while len(segment) > self._stuffed_max:
            cut = segment.rfind(b"\n", 0, self._stuffed_max) + 1
            if not cut or not self._lines(segment[:cut]):
                self._reject("too_long", segment)
                return None
            segment = self._smp_first(segment[cut:])
        return segment

    def _lines(self, segment: bytes) -> bool:
        """Hand on SMP lines, and the rest as text; False when the rest is no text."""
        if any(start in segment for start in _SMP_STARTS):
            rest = []
            for line in _split_lf(segment):
                if line[:2] in _SMP_STARTS and line.endswith(b"\n"):
                    self._keep_smp(line)
                else:
                    rest.append(line)
            segment = b"".join(rest)
        if segment.translate(None, _TEXT):
            return False
        try:
            text = segment.decode()
        except UnicodeDecodeError:
            return False
        if not text.isascii() and _CONTROL.search(text):
            return False
        for line_of_text in text.split("\n"):
            if stripped := line_of_text.removesuffix("\r"):
                self._keep_text(stripped)
        return True

    def _keep_text(self, line: str) -> None:
        self._text.append(line)
        self._text_bytes += len(line) + _LINE_COST_BYTES
        while self._text_bytes > TEXT_BYTES_HELD_MAX:
            self._text_bytes -= len(self._text.popleft()) + _LINE_COST_BYTES
            self.text_lines_dropped += 1

    def _keep_smp(self, line: bytes) -> None:
        self._smp.append(line)
        self._smp_bytes += len(line) + _LINE_COST_BYTES
        while self._smp_bytes > SMP_BYTES_HELD_MAX:
            self._smp_bytes -= len(self._smp.popleft()) + _LINE_COST_BYTES
            self.smp_lines_dropped += 1

    def _reject(self, reason: str, segment: bytes) -> None:
        self.rejected[reason] += 1
        self.sample.append((reason, segment[:SAMPLE_BYTES]))


def build_frame(content: bytes) -> bytes:
    """00 COBS(content ‖ CRC-32) 00. content: channel byte and payload, within the reader's cap."""
    raw = content + _pack_crc(zlib.crc32(content))
    if len(raw) > 253:
        return b"\0" + _stuff(raw) + b"\0"
    parts = [b"\0"]
    for run in raw.split(b"\0"):
        parts.append(_CODES[len(run) + 1])
        parts.append(run)
    parts.append(b"\0")
    return b"".join(parts)


def build_frames(contents: Iterable[bytes]) -> bytes:
    """All frames of a batch, for one write."""
    return b"".join([build_frame(content) for content in contents])


def _unstuff(segment: bytes) -> tuple[bytes, str]:
    """COBS and CRC-32 of any length: (content ‖ CRC, '') or (b'', reason)."""
    decoded = bytearray(segment)
    size, at, surplus = len(segment), 0, [0]
    while at < size:
        code = decoded[at]
        decoded[at] = 0
        at += code
        # No zero stands behind a block of 254.
        if code == 255 and at < size:
            surplus.append(at)
    if at != size:
        return b"", "bad_cobs"
    for place in reversed(surplus):
        del decoded[place]
    if len(decoded) <= _CRC_BYTES:
        return b"", "too_short"
    return (bytes(decoded), "") if zlib.crc32(decoded) == _RESIDUE else (b"", "bad_crc")


def _stuff(raw: bytes) -> bytes:
    parts: list[bytes] = []
    for run in raw.split(b"\0"):
        at = 0
        while len(run) - at >= 254:
            parts += (b"\xff", run[at : at + 254])
            at += 254
        parts += (_CODES[len(run) - at + 1], run[at:])
    # A last block of just 254 has nothing after it; the 01 that would begin the next one is left out.
    if parts[-1] == b"" and parts[-2] == b"\x01" and len(parts) > 2 and raw[-1] and len(parts[-3]) == 254:
        del parts[-2:]
    return b"".join(parts)


def _split_lf(segment: bytes) -> list[bytes]:
    """Lines with their LF; a lone CR ends none."""
    lines = [line + b"\n" for line in segment.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines
