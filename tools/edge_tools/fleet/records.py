"""What telemetry is once received: records to show, and input that was rejected. Pure.

A record's identity is (thing, boot, seq); it is shown once, however often it arrives. A record that lacks one of the
three is stored too, and cannot be told from its repeats.
"""

from collections.abc import Sequence

import msgspec

from edge.errors import InputRejected
from edge.topics import check_topic

INT_MAX = 2**63 - 1  # what a BIGINT holds
AVERAGES = 2**52  # sequences from here to twice this name averages of thinned readings: no readings
THING_BYTES_MAX = 512  # it stands in an index, whose rows PostgreSQL bounds at some 2,700 bytes
TIME_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999
SAMPLE_BYTES_MAX = 512
DETAIL_CHARACTERS_MAX = 200


class Record(msgspec.Struct, frozen=True, gc=False):
    """t: when it was measured, Unix ms, None if the sender did not know; received: when it came in, Unix ms."""

    topic: str
    payload: bytes
    received: int
    thing: str | None = None
    boot: int | None = None
    seq: int | None = None
    t: int | None = None

    @property
    def has_identity(self) -> bool:
        return self.thing is not None and self.boot is not None and self.seq is not None


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """Input that cannot be stored. reason: a stable word; sample: its beginning."""

    reason: str
    detail: str
    topic: str
    sample: bytes
    received: int


class Decoded(msgspec.Struct, frozen=True):
    """What one message held. beyond: rejections beyond those kept, by reason."""

    records: Sequence[Record] = ()
    rejections: Sequence[Rejection] = ()
    beyond: dict[str, int] = {}


def reject(error: InputRejected, topic: str, sample: bytes, received: int) -> Rejection:
    """Fit for any database: no NUL, no surrogate, bounded."""
    return Rejection(
        reason=error.reason,
        detail=printable(error.detail),
        topic=printable(topic),
        sample=bytes(sample[:SAMPLE_BYTES_MAX]),
        received=received,
    )


def printable(text: str) -> str:
    cut = text[:DETAIL_CHARACTERS_MAX].replace("\0", "␀")
    return cut.encode("utf-8", "replace").decode()


def make_record(
    topic: str,
    payload: bytes,
    received: int,
    *,
    thing: str | None,
    boot: int | None,
    seq: int | None,
    t: int | None,
) -> Record:
    """Check each value against what the databases hold. Raises InputRejected."""
    check_topic(topic)
    if thing is not None:
        check_thing(thing)
    for name, value in (("boot", boot), ("seq", seq)):
        if value is not None and not 0 <= value <= INT_MAX:
            raise InputRejected(f"bad_{name}", f"{name} is not within 0 to 2^63-1")
    if t is not None and not 0 <= t <= TIME_MS_MAX:
        raise InputRejected("bad_t", "t is not within the years 1970 to 9999, in ms")
    return Record(topic=topic, payload=payload, received=received, thing=thing, boot=boot, seq=seq, t=t)


def check_thing(thing: str) -> None:
    try:
        size = len(thing.encode())
    except UnicodeEncodeError:
        raise InputRejected("bad_thing", "the thing's name is no Unicode text") from None
    if not 0 < size <= THING_BYTES_MAX or "\0" in thing:
        raise InputRejected("bad_thing", f"a thing's name has 1 to {THING_BYTES_MAX} bytes, and no NUL")
