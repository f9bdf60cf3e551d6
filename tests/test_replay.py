"""How replay counts bytes: packets on the wire, and batches as streams make them."""

import msgspec

from edge.config import StreamSettings
from edge.messages import Message, Reading
from edge.mqtt.codes import V5
from edge.mqtt.packets import Publish
from edge.mqtt.reader import Parser
from edge.replay import Batches, Packets


def reading(number: int, payload: bytes = b'{"c":1}') -> Message:
    return Message("dt/b1/temp", payload, 1, reading=Reading("b1", 1, number), time_ms=1_700_000_000_000 + number)


def test_a_packet_is_as_long_as_what_a_parser_takes_for_one() -> None:
    packets = Packets()
    message = Message("dt/b1/temp", b"x" * 300, 1)
    packets.add(message)
    assert packets.bytes == 1 + 2 + 2 + 10 + 2 + 1 + 300
    [packet] = Parser(V5).feed(packets._publisher.build(message, 1, False))
    assert isinstance(packet, Publish)
    assert packet.payload == message.payload


def test_batches_end_when_they_are_full_or_have_waited() -> None:
    settings = StreamSettings(name="s", format="ndjson", batch_records_max=3, batch_bytes_max=1024, batch_wait_s=10.0)
    batches = Batches(settings, "batch/g/s")
    for number in range(1, 8):
        batches.add(reading(number), 0.0)
    assert batches.batches == 2
    batches.pass_time(9.9)
    assert batches.batches == 2
    batches.pass_time(10.0)
    assert batches.batches == 3
    for number in range(4):
        batches.add(reading(number, b"x" * 600), 20.0)
    assert batches.batches == 6  # one of these fits, not two
    batches.finish()
    batches.finish()
    assert batches.batches == 7


def test_a_gzipped_batch_counts_as_it_goes() -> None:
    settings = StreamSettings(name="s", format="ndjson", gzip=True)
    batches, plain = Batches(settings, "b"), Batches(msgspec.structs.replace(settings, gzip=False), "b")
    for number in range(1, 101):
        batches.add(reading(number), 0.0)
        plain.add(reading(number), 0.0)
    batches.finish()
    plain.finish()
    assert batches.batches == plain.batches == 1
    assert batches.bytes < plain.bytes / 5
