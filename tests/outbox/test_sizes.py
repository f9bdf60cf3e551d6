"""What a stream counts by bytes is what it costs: payload, topic, name and properties; and what it never stores."""

import asyncio
import random
from pathlib import Path

import pytest

from edge.messages import Message, Outcome, Properties, Reading, properties_bytes
from edge.mqtt.codes import V5
from edge.mqtt.publisher import Publisher
from edge.outbox.record import VERSION, encode
from edge.outbox.stream import CURSOR_S, PAYLOAD_BYTES_MAX
from edge.outbox.tail import BYTES_MAX, Tail
from tests.outbox.rig import Cloud, Rig, until

NOISE = "".join(map(chr, random.Random(3).choices(range(0x100, 0x800), k=30_000)))
LARGE = Properties(user=tuple((f"k{n}", NOISE[n * 10_000 : n * 10_000 + 10_000]) for n in range(3)))
TOO_LARGE = Properties(user=tuple((f"k{n}", "v" * 33_000) for n in range(4)))


@pytest.mark.parametrize(
    "properties",
    [
        Properties(),
        LARGE,
        Properties("réponse/1", b"\xff" * 300, "text/plain", True, 4_000_000_000, (("", ""), ("ä" * 40, "é" * 300))),
        Properties(user=tuple((f"{n}", "") for n in range(1000))),
    ],
)
def test_properties_are_never_larger_than_they_are_counted(properties: Properties) -> None:
    counted = properties_bytes(properties)
    plain = encode((VERSION, 1, 1, "dt/x", b"p", 1, None, None))
    assert len(encode((VERSION, 1, 1, "dt/x", b"p", 1, properties, None))) - len(plain) <= counted
    publisher = Publisher(V5, 0, 1 << 20, 2, True)
    sizes = [len(publisher.build(Message("dt/x", b"p", 1, properties=one), 1, dup=False)) for one in (None, properties)]
    assert sizes[1] - sizes[0] <= counted + 6  # property length and remaining length


def test_a_stream_full_of_properties_keeps_its_bound_and_tells_its_source(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None), bytes_max=2 << 20)
        rig.start()
        for number in range(1, 200):
            rig.stream.send([Message("dt/x", b"x", 1, False, number, LARGE)], rig.source)
            if number % 7 == 0:
                await rig.taken()
            assert rig.stream.log.bytes_held <= 2 << 20
        await rig.taken()
        taken, turned_away = (rig.source.receipts(one) for one in (Outcome.TAKEN, Outcome.CONGESTED))
        assert 15 < len(taken) < 100
        assert taken + turned_away == list(range(1, 200))
        assert rig.stream.log.bytes_held <= 2 << 20
        rig.stop()

    asyncio.run(run())


def test_properties_too_large_for_a_record_are_refused_and_counted(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None))
        rig.start()
        fits = Message("dt/x", b"x" * (PAYLOAD_BYTES_MAX - properties_bytes(LARGE)), 1, False, 3, LARGE)
        for message in (
            Message("dt/x", b"x", 1, False, 1, TOO_LARGE),
            Message("dt/x", b"x" * PAYLOAD_BYTES_MAX, 1, False, 2, LARGE),
            fits,
        ):
            rig.stream.send([message], rig.source)
        await rig.taken()
        assert (rig.source.receipts(Outcome.REFUSED), rig.source.receipts(Outcome.TAKEN)) == ([1, 2], [3])
        assert rig.stream.ledger.totals == {"too_large": 2}
        rig.stop()

    asyncio.run(run())


def test_what_is_in_memory_for_the_export_is_bounded_with_its_properties() -> None:
    tail = Tail()
    for number in range(1, 200):
        tail.put(number, [Message("dt/x", b"x", 1, False, number, LARGE)])
    assert (tail.next - tail.first) * properties_bytes(LARGE) <= BYTES_MAX


def test_what_is_too_large_is_counted_on_disk_before_its_sender_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None))
        rig.start()
        large = bytes(PAYLOAD_BYTES_MAX + 1)
        messages = [Message("dt/b1", large, 1, False, n, None, Reading("b1", 1, n)) for n in (1, 2)]
        rig.stream.send([*messages, Message("dt/x", large, 1, False, 3)], rig.source)
        assert rig.source.outcomes == {}
        await until(lambda: rig.source.receipts(Outcome.REFUSED) == [1, 2, 3])
        rig.kill()
        again = Rig(tmp_path, Cloud(None))
        assert again.stream.ledger.totals == {"too_large": 3}
        assert [(one.first, one.last) for one in again.stream.ledger.things["b1"]] == [(1, 2)]
        again.stop()

    asyncio.run(run())


@pytest.mark.parametrize("busy", [False, True])
def test_what_is_shed_without_a_record_is_committed_by_itself_before_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr("edge.outbox.stream.CURSOR_S", CURSOR_S / 20)

    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None))
        rig.start()
        if busy:  # a commit is in the air when it is shed
            rig.readings([1])
            rig.stream._commit()
            assert rig.stream.is_writing
        rig.messages([bytes(PAYLOAD_BYTES_MAX + 1)], qos=0)
        rig.stream.board_shed("b2", 1, 1, 4)
        await until(lambda: "shed/b2" in rig.stream.log.state)
        rig.kill()
        again = Rig(tmp_path, Cloud(None))
        assert again.stream.ledger.totals == {"too_large": 1, "shed_by_board": 4}
        again.stop()

    asyncio.run(run())
