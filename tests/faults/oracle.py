"""The one judge of every fault test: was each record produced received or shed with a reason, in order, shown once?

Three books are kept apart and only meet here. The producer's: what was produced, in which order, what was acknowledged,
what the source still holds. The receiver's: what arrived, in order, repeats included. The shed book: how many were
given up and why. A record's identity is in its payload, written by the producer (`made`); what a receiver tells repeats
by is the identity that travels beside it (`named`). Both are compared, so an identity mixed up on the way is found too.

An average that a stream made of many records is none of them: it has a name of its own, is shown beside them, and all
it stands for must be in the shed book as thinned, once.
"""

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tests.faults.numeric import AVERAGES, numeric_payload, read_numeric

SHOWN_MAX = 8
THINNED = "thinned"


class Id(NamedTuple):
    """Names one record for good."""

    thing: str
    boot: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.thing}/{self.boot}/{self.sequence}"


class Arrival(NamedTuple):
    """One record as it came in. made: as its payload says, None if the payload is none of ours or was altered; named:
    by the identity beside it, None if there was none; first: of an average, the first sequence it stands for: the last
    is in `made`, raised by AVERAGES."""

    made: Id | None
    named: Id | None
    first: int = 0

    @property
    def averaged(self) -> list[Id]:
        """What an average stands for."""
        if not self.first or self.made is None:
            return []
        thing, boot, name = self.made
        return [Id(thing, boot, sequence) for sequence in range(self.first, name - AVERAGES + 1)]


def arrival(payload: bytes, named: Id | None) -> Arrival:
    made, first = read_payload(payload)
    return Arrival(made, named, first)


class Shed(msgspec.Struct, frozen=True):
    """`count` of the records first … last of one source were given up."""

    thing: str
    boot: int
    first: int
    last: int
    count: int
    reason: str

    def covers(self, one: Id) -> bool:
        return (self.thing, self.boot) == (one.thing, one.boot) and self.first <= one.sequence <= self.last


class Produced(msgspec.Struct):
    """The producer's book. made: in the order of production; held: by the source, which will offer them again."""

    made: list[Id] = []
    acknowledged: set[Id] = set()
    held: set[Id] = set()


class Books(msgspec.Struct):
    """visible: what the receiving side shows at last, None: what is left of arrivals without repeats of the identity.
    drained: whether all came to rest within the bound the test gave after its last fault ended."""

    produced: Produced
    arrivals: Sequence[Arrival]
    shed: Sequence[Shed] = ()
    visible: Sequence[Id | None] | None = None
    drained: bool = True


class Verdict(msgspec.Struct):
    """lost: produced, and neither received, shed with a reason, nor held by the source; lost_acknowledged: of these
    what its source was told to forget. invented: arrived, and never produced or altered. misnamed: arrived under
    another identity than its own. averages: how many stand for others; averaged: for how many. miscounted:
    what the shed book says cannot be, averages that stand for the same record or for one not told as thinned."""

    produced: int
    acknowledged: int
    received: int
    averages: int
    averaged: int
    arrivals: int
    shed: dict[str, int]
    held: int
    lost: list[Id]
    lost_acknowledged: list[Id]
    repeats_visible: list[Id]
    out_of_order: list[Id]
    invented: int
    misnamed: list[Id]
    miscounted: list[str]
    drained: bool

    @property
    def repeats(self) -> int:
        """Arrivals beyond each record's first: allowed at least once, and hidden by the identity."""
        return self.arrivals - self.received - self.averages - self.invented

    @property
    def faults(self) -> list[str]:
        """What was promised and not kept; empty for a good run."""
        found = []
        for name in ("lost", "lost_acknowledged", "repeats_visible", "out_of_order", "misnamed", "miscounted"):
            some = getattr(self, name)
            if some:
                shown = ", ".join(str(one) for one in some[:SHOWN_MAX])
                found.append(f"{name}: {len(some)} ({shown}{', …' if len(some) > SHOWN_MAX else ''})")
        if self.invented:
            found.append(f"invented: {self.invented}")
        if not self.drained:
            found.append("not drained")
        return found

    def check(self, *, shed: Iterable[str] = (), held: bool = False) -> "Verdict":
        """Raise AssertionError for any fault. shed: the reasons for which the test allows giving up records; held:
        whether the sources may still hold some."""
        faults = self.faults
        if unexpected := set(self.shed) - set(shed):
            faults.append(f"shed although nothing should be: {sorted(unexpected)} {self.shed}")
        if self.held and not held:
            faults.append(f"{self.held} still held by their sources")
        if faults:
            raise AssertionError(f"{'; '.join(faults)}; {self.summary()}")
        return self

    def summary(self) -> str:
        return (
            f"{self.produced} produced, {self.acknowledged} acknowledged, {self.received} received, "
            f"{self.repeats} repeats, {self.held} held, shed {self.shed or 'none'}"
        )


def judge(books: Books) -> Verdict:
    """Compare the books."""
    produced = books.produced
    places = {one: place for place, one in enumerate(produced.made)}
    assert len(places) == len(produced.made), "the producer's own book names a record twice"
    received: dict[Id, None] = {}
    misnamed: list[Id] = []
    averages: dict[Id, list[Id]] = {}
    invented = 0
    for one in books.arrivals:
        made, averaged = one.made, one.averaged
        if made is None or any(other not in places for other in averaged or [made]):
            invented += 1
            continue
        if averaged:
            averages[made] = averaged
            places[made] = places[averaged[-1]]
        else:
            received[made] = None
        if one.named is not None and one.named != made:
            misnamed.append(made)
    visible = without_repeats(books.arrivals) if books.visible is None else books.visible
    missing = [one for one in produced.made if one not in received and one not in produced.held]
    unexplained, miscounted = _compare_shed(missing, received, books.shed)
    miscounted += _compare_averages(averages, books.shed)
    return Verdict(
        produced=len(produced.made),
        acknowledged=len(produced.acknowledged),
        received=len(received),
        averages=len(averages),
        averaged=sum(map(len, averages.values())),
        arrivals=len(books.arrivals),
        shed=_by_reason(books.shed),
        held=len(produced.held),
        lost=unexplained,
        lost_acknowledged=[one for one in unexplained if one in produced.acknowledged],
        repeats_visible=_repeated(visible),
        out_of_order=_disordered(visible, places),
        invented=invented,
        misnamed=misnamed,
        miscounted=miscounted,
        drained=books.drained,
    )


def without_repeats(arrivals: Iterable[Arrival]) -> list[Id | None]:
    """What a receiver shows that takes the identity beside each record for what it is; without one each is shown."""
    seen: set[Id] = set()
    shown = []
    for arrival in arrivals:
        if arrival.named is not None:
            if arrival.named in seen:
                continue
            seen.add(arrival.named)
        shown.append(arrival.made)
    return shown


def _repeated(visible: Iterable[Id | None]) -> list[Id]:
    seen: set[Id] = set()
    repeated = []
    for one in visible:
        if one is None:
            continue
        if one in seen:
            repeated.append(one)
        seen.add(one)
    return repeated


def _disordered(visible: Iterable[Id | None], places: Mapping[Id, int]) -> list[Id]:
    """What is shown after something that its source produced later. A repeat is judged as a repeat, not here."""
    newest: dict[str, int] = {}
    seen: set[Id] = set()
    late = []
    for one in visible:
        if one is None or one not in places or one in seen:
            continue
        seen.add(one)
        if places[one] < newest.get(one.thing, -1):
            late.append(one)
        newest[one.thing] = max(newest.get(one.thing, -1), places[one])
    return late


def _by_reason(shed: Iterable[Shed]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in shed:
        counts[one.reason] = counts.get(one.reason, 0) + one.count
    return counts


def _compare_shed(
    missing: Sequence[Id], received: Mapping[Id, None], shed: Sequence[Shed]
) -> tuple[list[Id], list[str]]:
    """What is missing without a reason, and stretches that cannot be: each of the missing stands for one of a
    stretch's count; what was received may have been given up as well, its receipt being unknown to the gateway."""
    by_source: dict[tuple[str, int], list[int]] = {}
    for number, one in enumerate(shed):
        by_source.setdefault((one.thing, one.boot), []).append(number)
    for numbers in by_source.values():  # of those that overlap each takes what no other can
        numbers.sort(key=lambda number: shed[number].last)
    room = [one.count for one in shed]
    unexplained = []
    for gone in sorted(missing):
        for number in by_source.get((gone.thing, gone.boot), ()):
            if room[number] > 0 and shed[number].covers(gone):
                room[number] -= 1
                break
        else:
            unexplained.append(gone)
    miscounted = []
    for one, left in zip(shed, room, strict=True):
        also = sum(1 for other in received if one.covers(other)) if left > 0 else 0
        if left > also:
            miscounted.append(f"{one} counts {left - also} more than there can be")
        if not 0 < one.count <= one.last - one.first + 1:
            miscounted.append(f"{one} is no stretch")
    return unexplained, miscounted


def _compare_averages(averages: Mapping[Id, Sequence[Id]], shed: Sequence[Shed]) -> list[str]:
    thinned = [one for one in shed if one.reason == THINNED]
    stands_for: dict[Id, Id] = {}
    wrong = []
    for average, averaged in averages.items():
        for one in averaged:
            if (other := stands_for.setdefault(one, average)) != average:
                wrong.append(f"{one} is in the averages {other} and {average}")
            if not any(stretch.covers(one) for stretch in thinned):
                wrong.append(f"{one} is in the average {average}, and not told as thinned")
    return wrong


def payload(one: Id, bytes_min: int = 0, *, numeric: bool = False) -> bytes:
    """A record that carries its identity and a check of it; padded to bytes_min. numeric: one that can be averaged."""
    if numeric:
        return numeric_payload(*one, bytes_min)
    body = b'{"thing":"%b","boot":%d,"seq":%d' % (one.thing.encode(), one.boot, one.sequence)
    padding = max(0, bytes_min - len(body) - 28)
    noise = hashlib.shake_128(body).hexdigest((padding + 1) // 2)[:padding]  # else compression makes nothing of it
    body += b',"pad":"%b"' % noise.encode()
    return body + b',"check":"%08x"}' % zlib.crc32(body)


def read_payload(data: bytes) -> tuple[Id | None, int]:
    """The identity in it; None if it is not exactly what `payload` made or what averaging makes of that. And of an
    average the first sequence it stands for, else 0."""
    if (found := read_numeric(data)) is not None:
        return Id(*found[:3]), found[3]
    body, separator, check = data.rpartition(b',"check":')
    if not separator or check != b'"%08x"}' % zlib.crc32(body):
        return None, 0
    try:
        row = msgspec.json.decode(body + b"}", type=_Row)
    except msgspec.DecodeError:
        return None, 0
    return Id(row.thing, row.boot, row.seq), 0


class _Row(msgspec.Struct):
    thing: str
    boot: int
    seq: int
