"""What must hold of the MQTT parser and session for any bytes."""

from contextlib import suppress
from typing import Final

from edge.messages import Message
from edge.mqtt import packets
from edge.mqtt.codes import V5, V311, ProtocolError
from edge.mqtt.events import Options, Received, Refused
from edge.mqtt.packets import Packet, Subscription, encode
from edge.mqtt.reader import Parser
from edge.mqtt.session import Session
from tests.mqtt.flat import bulk_reader, expected, plain_parser, read

_CONNACKS: Final = {version: encode(packets.Connack(), version) for version in (V5, V311)}


def mqtt(data: bytes) -> None:
    """data: a byte of choices, where to cut the stream, and the stream."""
    if len(data) < 2:
        return
    version = V5 if data[0] & 1 else V311
    _parser(data[2:], version, data[1])
    _hot_path(data[2:], version, data[1])
    _session(data[2:], version, data[1], accepted=bool(data[0] & 2))


def seed(version: int, raw: bytes) -> bytes:
    return bytes(((version == V5) | 2, 3)) + raw


def _parser(data: bytes, version: int, cut: int) -> None:
    """Whole and in two pieces the same comes out; what was read can be written, and read again."""
    whole, pieces = Parser(version, 4096), Parser(version, 4096)
    found, again = _read(whole, [data]), _read(pieces, [data[:cut], data[cut:]])
    assert found == again
    assert (whole.error is None) == (pieces.error is None)
    for packet in found:
        if isinstance(packet, packets.Connect):
            version = packet.version
        assert Parser(version).feed(encode(packet, version)) == [packet]


def _read(parser: Parser, pieces: list[bytes]) -> list[Packet]:
    found: list[Packet] = []
    with suppress(ProtocolError):
        for piece in [*pieces, b""]:
            found += parser.feed(piece)
    return found


def _hot_path(data: bytes, version: int, cut: int) -> None:
    """What the plain parser finds, however the stream is cut, and an error where it sees one. (A CONNECT would change
    the plain parser's version; no server sends one.)"""
    parser = plain_parser(version)
    packets_found = _read(parser, [data])
    if any(isinstance(packet, packets.Connect) for packet in packets_found):
        return
    plain = expected(packets_found)
    failed = plain[3] or parser.error is not None
    for pieces in ([data], [data[:cut], data[cut:]], [data[at : at + 1] for at in range(len(data))]):
        assert read(bulk_reader(version), pieces) == (*plain[:3], failed)


def _session(data: bytes, version: int, cut: int, *, accepted: bool) -> None:
    """Nothing is raised, and what the session writes is well-formed."""
    session = Session(Options(client_id="fuzz", version=version, packet_bytes_max=4096, receive_maximum=20))
    session.connect(0.0)
    if accepted:
        session.receive(_CONNACKS[version], 0.0)
        session.publish([Message("a", b"x", qos, receipt=qos) for qos in (0, 1, 2, 1, 2)], None)
        session.subscribe([Subscription("a/#", 1)])
    for piece in (data[:cut], data[cut:]):
        for event in session.receive(piece, 1.0):
            assert not (accepted and isinstance(event, Refused))
            if isinstance(event, Received):
                session.acknowledge([message.receipt for message in event.messages if message.qos])
    session.tick(1e6)
    parser = Parser(version)
    parser.feed(session.output())
    assert parser.feed(b"") == []
    session.transport_lost()
