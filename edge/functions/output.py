"""What a function prints, as lines, bounded in length and rate. Pure.

Invariants: a line longer than LINE_BYTES_MAX is cut there, once; beyond the rate lines are dropped and counted, and the
count is told with the next line that is let through.
"""

from typing import Final

LINE_BYTES_MAX: Final = 4096
LINES_PER_S: Final = 20.0
LINES_BURST: Final = 200.0


class Output:
    """Of one pipe."""

    def __init__(self, now: float) -> None:
        self._held = b""
        self._cut = False
        self._tokens, self._at = LINES_BURST, now
        self.dropped = 0
        """Lines dropped and not told yet."""

    def feed(self, data: bytes, now: float) -> list[str]:
        """Lines that are whole by now and within the rate."""
        lines: list[str] = []
        self._tokens = min(self._tokens + (now - self._at) * LINES_PER_S, LINES_BURST)
        self._at = now
        *whole, rest = data.split(
            b"\n", int(self._tokens) + 1
        )  # one more than may be let through: it may end a cut one
        for part in whole:
            line, self._held = self._held + part[: LINE_BYTES_MAX + 1], b""
            cut, self._cut = self._cut, False
            if not cut:
                self._let_through(line, lines)
        if b"\n" in rest:  # none of these is: counting them costs little
            dropped, _, rest = rest.rpartition(b"\n")
            self.dropped += dropped.count(b"\n") + 1
        if not self._cut:
            self._held += rest[: LINE_BYTES_MAX + 1]
            if len(self._held) > LINE_BYTES_MAX:
                self._let_through(self._held, lines)
                self._held, self._cut = b"", True
        return lines

    def finish(self) -> list[str]:
        """The pipe ended: what is left without a line's end."""
        lines: list[str] = []
        if self._held:
            self._let_through(self._held, lines)
            self._held = b""
        return lines

    def take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped

    def _let_through(self, line: bytes, lines: list[str]) -> None:
        if self._tokens < 1:
            self.dropped += 1
            return
        self._tokens -= 1
        text = line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
        lines.append(text + " …" if len(line) > LINE_BYTES_MAX else text)
