"""The session's rules one by one."""

from collections.abc import Sequence

import pytest

from edge.errors import InputRejected, TransientError
from edge.messages import Message, Outcome, Properties, Reading
from edge.mqtt import packets as p
from edge.mqtt.codes import V5, V311
from edge.mqtt.events import (
    AuthChallenge,
    Connected,
    Disconnected,
    Event,
    Options,
    PassedOver,
    ProtocolFailed,
    Received,
    Refused,
    Settled,
    Subscribed,
    Unsubscribed,
    Will,
)
from edge.mqtt.packets import Packet, Subscription, encode
from edge.mqtt.properties import NONE, PacketProperties
from edge.mqtt.reader import Parser
from edge.mqtt.session import Session

BOTH = pytest.mark.parametrize("version", [V5, V311], ids=["mqtt5", "mqtt311"])


class Board:
    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        raise AssertionError("the session tells by events")


class Wire:
    """A session with its output read as packets."""

    def __init__(self, version: int = V5, **options: object) -> None:
        self.version = version
        self.session = Session(Options(client_id="gateway", version=version, **options))  # type: ignore[arg-type]

    def sent(self) -> list[Packet]:
        return self._parser.feed(self.session.output())

    def open(self, now: float = 0.0) -> p.Connect:
        self._parser = Parser(self.version)
        self.session.connect(now)
        (packet,) = self.sent()
        assert isinstance(packet, p.Connect)
        return packet

    def connect(self, *, present: bool = False, code: int = 0, now: float = 0.0, **granted: object) -> list[Event]:
        self.open(now)
        bag = PacketProperties(**granted) if granted else NONE  # type: ignore[arg-type]
        return self.send(p.Connack(present, code, bag), now=now)

    def send(self, *packets: Packet, now: float = 0.0) -> list[Event]:
        return self.session.receive(b"".join(encode(one, self.version) for one in packets), now)

    def lose(self) -> None:
        assert self.session.transport_lost() == []


def _messages(*topics: str, qos: int = 1) -> list[Message]:
    return [Message(topic, b"x", qos, receipt=100 + place) for place, topic in enumerate(topics)]


def _marks(packets: Sequence[Packet]) -> list[tuple[str, int, bool]]:
    return [(one.topic, one.packet_id, one.dup) for one in packets if isinstance(one, p.Publish)]


# Connecting


def test_connect_says_what_the_options_ask_for() -> None:
    wire = Wire(
        keepalive_s=7,
        session_expiry_s=60,
        window=5,
        receive_maximum=9,
        packet_bytes_max=5000,
        topic_alias_maximum=3,
        will=Will("w", b"gone", 1, True, 5),
        username="u",
        password=b"p",
        authentication_method="m",
        authentication_data=b"d",
        request_response_information=True,
    )
    assert wire.open() == p.Connect(
        "gateway",
        V5,
        True,
        7,
        p.ConnectWill("w", b"gone", 1, True, PacketProperties(will_delay_s=5)),
        "u",
        b"p",
        PacketProperties(
            session_expiry_s=60,
            receive_maximum=9,
            packet_bytes_max=5000,
            topic_alias_maximum=3,
            authentication_method="m",
            authentication_data=b"d",
            request_response_information=1,
        ),
    )


def test_connect_of_311_has_no_properties() -> None:
    wire = Wire(V311, keepalive_s=7, will=Will("w", b"gone"), clean_start=False)
    assert wire.open() == p.Connect("gateway", V311, False, 7, p.ConnectWill("w", b"gone"))


def test_options_no_connect_can_say_are_refused_at_once() -> None:
    with pytest.raises(InputRejected):
        Session(Options(client_id="a", will=Will("a/#", b"")))
    with pytest.raises(InputRejected):
        Session(Options(client_id="a", receive_maximum=0))


def test_all_the_server_grants_is_told() -> None:
    wire = Wire(keepalive_s=30, clean_start=False)
    assert wire.connect(
        present=True,
        session_expiry_s=10,
        receive_maximum=3,
        qos_maximum=1,
        retain_available=0,
        packet_bytes_max=500,
        assigned_client_id="other",
        topic_alias_maximum=4,
        wildcard_available=0,
        subscription_ids_available=0,
        shared_available=0,
        server_keepalive_s=5,
        response_information="r/",
        server_reference="elsewhere",
        authentication_method="m",
        authentication_data=b"d",
    ) == [
        Connected(True, "other", 5, 10, 3, 500, 1, False, False, False, False, 4, "r/", "elsewhere", b"d"),
    ]
    assert wire.session.connected
    assert wire.session.deadline() == 5


@BOTH
def test_a_refusal_is_told_by_the_standards_name(version: int) -> None:
    code = 0x87 if version == V5 else 5
    wire = Wire(version)
    assert wire.connect(code=code) == [Refused(0x87, "not_authorized")]
    assert wire.session.ended
    assert wire.session.output() == b""


def test_a_session_the_server_claims_to_have_after_a_clean_start_is_an_error() -> None:
    (event,) = Wire(clean_start=True).connect(present=True)
    assert isinstance(event, ProtocolFailed)


def test_only_the_first_connection_starts_clean_and_the_assigned_name_is_kept() -> None:
    wire = Wire(clean_start=True, session_expiry_s=60)
    wire.connect(assigned_client_id="given")
    wire.lose()
    again = wire.open()
    assert (again.clean_start, again.client_id) == (False, "given")


@BOTH
def test_anything_before_connack_is_an_error(version: int) -> None:
    for packet in (p.Pingresp(), p.Publish("t", b"", 1, packet_id=1), p.Puback(1)):
        wire = Wire(version)
        wire.open()
        (event,) = wire.send(packet)
        assert isinstance(event, ProtocolFailed)
        assert event.reason == "no_connack"
        assert wire.session.output() == b""


@BOTH
def test_a_second_connack_and_packets_only_clients_send_are_errors(version: int) -> None:
    for packet in (p.Connack(), p.Pingreq(), p.Unsubscribe(1, ("a",)), p.Subscribe(1, (Subscription("a"),))):
        wire = Wire(version)
        wire.connect()
        (event,) = wire.send(packet)
        assert isinstance(event, ProtocolFailed)
        assert wire.session.ended
        assert wire.sent() == ([p.Disconnect(0x82)] if version == V5 else [])
        assert wire.session.receive(b"\xd0\0", 0.0) == []


def test_bytes_after_the_connection_ended_are_let_go() -> None:
    session = Session(Options(client_id="a"))
    assert session.receive(b"\xd0\0", 0.0) == []
    assert session.publish(_messages("t"), None) == 0
    assert session.room() == 0
    assert session.output() == b""


# Publishing


@BOTH
def test_publishes_are_settled_in_runs_of_one_origin(version: int) -> None:
    wire, one, two = Wire(version), Board(), Board()
    wire.connect()
    assert wire.session.publish(_messages("a", "b"), one) == 2
    assert wire.session.publish(_messages("c"), two) == 1
    assert wire.session.publish(_messages("d"), one) == 1
    assert _marks(wire.sent()) == [("a", 1, False), ("b", 2, False), ("c", 3, False), ("d", 4, False)]
    assert wire.send(*map(p.Puback, (1, 2, 3, 4))) == [
        Settled(one, [100, 101], Outcome.TAKEN, 0),
        Settled(two, [100], Outcome.TAKEN, 0),
        Settled(one, [100], Outcome.TAKEN, 0),
    ]
    assert wire.session.in_flight == 0


def test_no_more_is_taken_than_the_server_and_the_window_allow() -> None:
    wire = Wire(window=3)
    wire.connect(receive_maximum=2)
    assert wire.session.room() == 2
    batch = _messages("a", "b", "c")
    assert wire.session.publish(batch, None) == 2
    assert wire.session.room() == 0
    assert wire.session.publish([Message("q", b"")], None) == 1
    wire.send(p.Puback(1))
    assert wire.session.publish(batch[2:], None) == 1
    small = Wire(window=3)
    small.connect(receive_maximum=9)
    assert small.session.room() == 3


def test_packet_ids_wrap_and_step_over_those_in_use() -> None:
    wire = Wire(window=2)
    wire.connect()
    assert wire.session.publish(_messages("held"), None) == 1
    wire.sent()
    for packet_id in range(2, 65536):
        assert wire.session.publish(_messages("t"), None) == 1
        assert _marks(wire.sent()) == [("t", packet_id, False)]
        wire.send(p.Puback(packet_id))
    wire.session.publish(_messages("t"), None)
    assert _marks(wire.sent()) == [("t", 2, False)]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0x10, Outcome.TAKEN),
        (0x80, Outcome.REFUSED),
        (0x87, Outcome.REFUSED),
        (0x90, Outcome.REFUSED),
        (0x91, Outcome.CONGESTED),
        (0x97, Outcome.CONGESTED),
    ],
)
def test_the_servers_answer_decides_the_outcome(code: int, outcome: Outcome) -> None:
    wire = Wire()
    wire.connect()
    wire.session.publish([*_messages("a"), *_messages("b", qos=2)], None)
    refused = outcome is Outcome.REFUSED
    assert wire.send(p.Puback(1, code)) == [Settled(None, [100], outcome, code, "a" if refused else "")]
    if code >= 0x80:
        assert wire.send(p.Pubrec(2, code)) == [Settled(None, [100], outcome, code, "b" if refused else "")]
        assert wire.session.in_flight == 0


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "\ud800", "x" * 65536])
def test_what_no_server_takes_is_settled_as_refused_on_the_spot(topic: str) -> None:
    wire = Wire()
    wire.connect()
    batch = [Message(topic, b"", 1, receipt=7), Message(topic, b""), Message("fine", b"", 1)]
    assert wire.session.publish(batch, None) == 3
    assert wire.session.events() == [Settled(None, [7], Outcome.REFUSED, 0x90, topic)]
    assert _marks(wire.sent()) == [("fine", 2, False)]


def test_a_message_above_the_servers_maximum_is_refused_with_its_topic_known_or_not() -> None:
    wire = Wire()
    wire.connect(packet_bytes_max=60, topic_alias_maximum=1)
    large = Message("t", bytes(60), 1, receipt=1)
    fits = Message("t", bytes(10), 1, receipt=2)
    assert wire.session.publish([large, fits, large, fits], None) == 4
    assert wire.session.events() == [
        Settled(None, [1], Outcome.REFUSED, 0x95, "t"),
        Settled(None, [1], Outcome.REFUSED, 0x95, "t"),
    ]
    assert [one.topic for one in wire.sent() if isinstance(one, p.Publish)] == ["t", ""]


def test_what_the_server_lacks_is_lowered_or_refused() -> None:
    wire = Wire()
    wire.connect(qos_maximum=1, retain_available=0)
    wire.session.publish([Message("a", b"", 2, receipt=1), Message("b", b"", 1, True, receipt=2)], None)
    assert wire.session.events() == [Settled(None, [2], Outcome.REFUSED, 0x9A, "b")]
    assert wire.sent() == [p.Publish("a", b"", 1, packet_id=1)]
    assert wire.send(p.Puback(1)) == [Settled(None, [1], Outcome.TAKEN, 0)]
    low = Wire()
    low.connect(qos_maximum=0)
    low.session.publish([Message("a", b"", 1, receipt=1), Message("b", b"")], None)
    assert low.session.events() == [Settled(None, [1], Outcome.REFUSED, 0x9B, "a")]
    assert low.sent() == [p.Publish("b", b"")]


def test_properties_and_the_reading_travel_with_the_message() -> None:
    wire = Wire()
    wire.connect(topic_alias_maximum=1)
    full = Properties("answers", b"id", "text", True, 60, (("k", "v"),))
    reading = Reading("board", 4, 12345)
    wire.session.publish(
        [
            Message("t", b"1", 1, True, properties=full, reading=reading),
            Message("t", b"2", 0, reading=reading),
            Message("u", b"3", 1, reading=Reading("board", 5, 1)),
            Message("u", b"4", 1, properties=Properties()),
        ],
        None,
    )
    named = (("thing", "board"), ("boot", "4"), ("seq", "12345"))
    bag = PacketProperties(
        topic_alias=1,
        payload_format=1,
        expiry_s=60,
        content_type="text",
        response_topic="answers",
        correlation_data=b"id",
        user=(("k", "v"), *named),
    )
    assert wire.sent() == [
        p.Publish("t", b"1", 1, True, False, 1, bag),
        p.Publish("", b"2", properties=PacketProperties(topic_alias=1, user=named)),
        p.Publish(
            "u",
            b"3",
            1,
            packet_id=2,
            properties=PacketProperties(user=(("thing", "board"), ("boot", "5"), ("seq", "1"))),
        ),
        p.Publish("u", b"4", 1, packet_id=3),
    ]


@pytest.mark.parametrize("aliases", [0, 1, 5])
def test_readings_that_follow_one_another_are_named_as_the_first_one_is(aliases: int) -> None:
    wire = Wire()
    wire.connect(topic_alias_maximum=aliases, packet_bytes_max=300)
    readings = [
        ("t", "board", 1, 9, 0),
        ("t", "board", 1, 10, 0),
        ("t", "other", 1, 11, 1_700_000_000_000),
        ("u", "board", 1, 4_294_967_295, 1_700_000_000_000),
        ("t", "board", 2, 1, 1_700_000_000_001),
        ("t", "board", 2, 2, 1_700_000_000_001),
        ("t", "board", 2, 3, 0),
        ("t", "board", 1, 12, 5),
        ("u", "b" * 128, 1, 7, 5),
        ("u", "b" * 128, 1, 8, 5),
    ]
    batch = [
        Message(topic, b"x", 1, reading=Reading(thing, boot, sequence), time_ms=time_ms)
        for topic, thing, boot, sequence, time_ms in readings
    ]
    assert wire.session.publish(batch, None) == len(batch)
    sent = [one for one in wire.sent() if isinstance(one, p.Publish)]
    assert [one.packet_id for one in sent] == list(range(1, 11))
    topics: dict[int | None, str] = {}
    for one, (topic, thing, boot, sequence, time_ms) in zip(sent, readings, strict=True):
        stamp = (("t", str(time_ms)),) if time_ms else ()
        assert one.properties.user == (("thing", thing), ("boot", str(boot)), ("seq", str(sequence)), *stamp)
        assert topic == (one.topic or topics[one.properties.topic_alias])
        topics[one.properties.topic_alias] = topic
        assert one.payload == b"x"


def test_a_reading_above_the_servers_maximum_is_refused_when_its_thing_is_known_too() -> None:
    wire = Wire()
    wire.connect(packet_bytes_max=80)
    named = [Message("t", bytes(size), 1, receipt=n, reading=Reading("b", 1, n)) for n, size in enumerate((9, 60, 9))]
    assert wire.session.publish(named, None) == 3
    assert wire.session.events() == [Settled(None, [1], Outcome.REFUSED, 0x95, "t")]
    assert len(wire.sent()) == 2


def test_under_311_properties_and_readings_are_left_out() -> None:
    wire = Wire(V311)
    wire.connect()
    wire.session.publish([Message("t", b"1", 1, properties=Properties("r"), reading=Reading("b", 1, 1))], None)
    assert wire.sent() == [p.Publish("t", b"1", 1, packet_id=1)]


def test_aliases_go_to_the_first_topics_and_end_with_the_connection() -> None:
    wire = Wire(clean_start=False, session_expiry_s=9)
    wire.connect(topic_alias_maximum=2)
    batch = _messages("a", "b", "c", "a", "b", "c")
    wire.session.publish(batch, None)
    found = [(one.topic, one.properties.topic_alias) for one in wire.sent() if isinstance(one, p.Publish)]
    assert found == [("a", 1), ("b", 2), ("c", None), ("", 1), ("", 2), ("c", None)]
    wire.lose()
    wire.connect(present=True, topic_alias_maximum=1)
    found = [(one.topic, one.properties.topic_alias) for one in wire.sent() if isinstance(one, p.Publish)]
    assert found == [("a", 1), ("b", None), ("c", None), ("", 1), ("b", None), ("c", None)]


# Losing the connection


@BOTH
def test_what_was_in_flight_is_sent_again_in_order_and_newer_waits(version: int) -> None:
    wire = Wire(version, clean_start=False, session_expiry_s=9, window=4)
    wire.connect()
    wire.session.publish([*_messages("a"), *_messages("b", "c", qos=2), *_messages("d")], None)
    wire.send(p.Pubrec(2))
    wire.sent()
    wire.lose()
    wire.connect(present=True)
    packets = wire.sent()
    assert packets[0] == p.Pubrel(2)
    assert _marks(packets) == [("a", 1, True), ("c", 3, True), ("d", 4, True)]
    assert wire.session.publish(_messages("e"), None) == 0
    assert wire.send(p.Puback(1), p.Pubcomp(2)) == [
        Settled(None, [100], Outcome.TAKEN),
        Settled(None, [100], Outcome.TAKEN),
    ]
    assert wire.session.publish(_messages("e"), None) == 1


@BOTH
def test_without_the_servers_session_all_is_published_as_new(version: int) -> None:
    wire = Wire(version, clean_start=False, session_expiry_s=9)
    wire.connect()
    wire.session.publish([*_messages("a"), *_messages("b", qos=2)], None)
    wire.send(p.Pubrec(2))
    wire.lose()
    wire.connect(present=False)
    assert _marks(wire.sent()) == [("a", 1, False), ("b", 2, False)]
    assert wire.session.in_flight == 2


def test_a_smaller_receive_maximum_holds_back_what_is_sent_again() -> None:
    wire = Wire(clean_start=False, session_expiry_s=9)
    wire.connect()
    wire.session.publish(_messages("a", "b", "c"), None)
    wire.lose()
    wire.connect(present=True, receive_maximum=1)
    assert _marks(wire.sent()) == [("a", 1, True)]
    wire.send(p.Puback(1))
    assert _marks(wire.sent()) == [("b", 2, True)]
    wire.send(p.Puback(2, 0x10))
    assert _marks(wire.sent()) == [("c", 3, True)]


def test_a_server_that_takes_less_after_reconnecting_gets_less() -> None:
    wire = Wire(clean_start=False, session_expiry_s=9)
    wire.connect()
    wire.session.publish([Message("a", bytes(100), 1, receipt=1), Message("b", b"", 1, True, receipt=2)], None)
    wire.lose()
    events = wire.connect(present=True, packet_bytes_max=50, retain_available=0)
    assert events[1:] == [
        Settled(None, [1], Outcome.REFUSED, 0x95, "a"),
        Settled(None, [2], Outcome.REFUSED, 0x9A, "b"),
    ]


def test_what_is_refused_between_two_connections_is_never_sent_again() -> None:
    wire, board = Wire(clean_start=False, session_expiry_s=9), Board()
    wire.connect()
    wire.session.publish([*_messages("a"), *_messages("b", qos=2), *_messages("c", "b")], board)
    wire.send(p.Pubrec(2))
    wire.lose()
    settled = wire.session.refuse(lambda message, _: message.topic == "b", 0x87)
    assert settled == [Settled(board, [101], Outcome.REFUSED, 0x87, "b")]
    wire.connect(present=True)
    sent = wire.sent()
    assert _marks(sent) == [("a", 1, True), ("c", 3, True)]
    assert p.Pubrel(2) in sent  # the server has that one already


def test_under_a_restriction_the_oldest_goes_alone_and_all_follow_when_it_is_lifted() -> None:
    wire = Wire(clean_start=False, session_expiry_s=9)
    wire.connect()
    wire.session.publish(_messages("a", "b", "c"), None)
    wire.lose()
    wire.session.restrict(0)
    wire.connect(present=True)
    assert (wire.sent(), wire.session.oldest_sent()) == ([], None)
    wire.session.restrict(1)
    assert _marks(wire.sent()) == [("a", 1, True)]
    oldest = wire.session.oldest_sent()
    assert oldest is not None
    assert oldest[0] == _messages("a")[0]
    assert (wire.session.room(), wire.session.publish([Message("d", b"")], None)) == (0, 0)
    wire.send(p.Puback(1))
    wire.session.restrict(None)
    assert _marks(wire.sent()) == [("b", 2, True), ("c", 3, True)]
    assert wire.session.publish(_messages("d"), None) == 1


def test_giving_up_settles_everything_once() -> None:
    wire, board = Wire(), Board()
    wire.connect()
    wire.session.publish(_messages("a", "b"), board)
    assert wire.session.abandon() == [Settled(board, [100, 101], Outcome.CONGESTED)]
    assert wire.send(p.Puback(1)) == []


# Receiving


@BOTH
def test_all_messages_of_one_read_come_as_one_event_and_are_answered_in_order(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    events = wire.send(
        p.Publish("a", b"0"),
        p.Publish("a", b"1", 1, packet_id=7),
        p.Publish("b", b"2", 2, packet_id=8),
        p.Publish("a", b"3", 1, packet_id=9),
    )
    assert events == [
        Received(
            [
                Message("a", b"0"),
                Message("a", b"1", 1, receipt=7),
                Message("b", b"2", 2, receipt=8),
                Message("a", b"3", 1, receipt=9),
            ]
        )
    ]
    wire.session.acknowledge([9])
    assert wire.sent() == []
    wire.session.acknowledge([7])
    assert wire.sent() == [p.Puback(7)]
    wire.session.acknowledge([8, 8, 99])
    assert wire.sent() == [p.Pubrec(8), p.Puback(9)]
    assert wire.send(p.Pubrel(8), p.Pubrel(8)) == []
    assert wire.sent() == [p.Pubcomp(8), p.Pubcomp(8, 0x92 if version == V5 else 0)]


@BOTH
def test_a_refusal_is_said_where_the_version_knows_one(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    wire.send(p.Publish("a", b"", 1, packet_id=1), p.Publish("a", b"", 2, packet_id=2))
    wire.session.acknowledge([1, 2], 0x87)
    code = 0x87 if version == V5 else 0
    assert wire.sent() == [p.Puback(1, code), p.Pubrec(2, code)]
    if version == V5:  # refused: the id is free again
        assert wire.send(p.Publish("a", b"", 2, packet_id=2)) == [Received([Message("a", b"", 2, receipt=2)])]


@BOTH
def test_a_qos_2_message_is_handed_over_once_over_connections(version: int) -> None:
    wire = Wire(version, clean_start=False, session_expiry_s=9)
    wire.connect()
    (received,) = wire.send(p.Publish("a", b"", 2, packet_id=5))
    assert isinstance(received, Received)
    wire.lose()
    wire.session.acknowledge([5])
    wire.connect(present=True)
    assert wire.sent() == []
    assert wire.send(p.Publish("a", b"", 2, dup=True, packet_id=5)) == []
    assert wire.sent() == [p.Pubrec(5)]
    assert wire.send(p.Publish("a", b"", 2, dup=True, packet_id=5)) == []
    assert wire.sent() == [p.Pubrec(5)]
    wire.lose()
    wire.connect(present=False)
    (received,) = wire.send(p.Publish("a", b"", 2, packet_id=5))
    assert received == Received([Message("a", b"", 2, receipt=2 << 16 | 5)])


@BOTH
def test_a_late_acknowledgement_never_meets_a_message_of_the_next_connection(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    wire.send(p.Publish("a", b"", 1, packet_id=5))
    wire.lose()
    wire.connect()
    (received,) = wire.send(p.Publish("b", b"", 1, packet_id=5))
    wire.session.acknowledge([5])
    assert wire.sent() == []
    assert isinstance(received, Received)
    wire.session.acknowledge([received.messages[0].receipt])
    assert wire.sent() == [p.Puback(5)]


def test_under_311_a_message_above_the_maximum_is_answered_in_its_turn_and_told() -> None:
    wire = Wire(V311, packet_bytes_max=200)
    wire.connect()
    large = bytes(500)
    sent = [p.Publish("a", b"", 1, packet_id=1), p.Publish("b", large, 1, packet_id=2), p.Publish("c", large)]
    told = wire.send(*sent, p.Publish("d", large, 2, packet_id=3), p.Publish("e", b"", packet_id=0))
    over = [event for event in told if isinstance(event, PassedOver)]
    assert [(one.topic, one.bytes) for one in over] == [("b", 508), ("c", 506), ("d", 508)]
    (received,) = [event for event in told if isinstance(event, Received)]
    assert [message.topic for message in received.messages] == ["a", "e"]
    assert wire.sent() == []  # answers go in order (MQTT 5.0, 4.6)
    wire.session.acknowledge([received.messages[0].receipt])
    assert wire.sent() == [p.Puback(1), p.Puback(2), p.Pubrec(3)]
    assert wire.send(p.Pubrel(3)) == []
    assert wire.sent() == [p.Pubcomp(3)]


def test_under_mqtt_5_a_message_above_the_maximum_is_an_error() -> None:
    wire = Wire(V5, packet_bytes_max=200)
    wire.connect()
    (failed,) = wire.send(p.Publish("b", bytes(500), 1, packet_id=2))
    assert isinstance(failed, ProtocolFailed)
    assert failed.reason == "packet_too_large"


def test_a_server_that_sends_more_than_it_may_is_told_so() -> None:
    wire = Wire(receive_maximum=2, receive_excess=0)
    wire.connect()
    events = wire.send(*(p.Publish("a", b"", 1 + number % 2, packet_id=number + 1) for number in range(3)))
    assert [type(event) for event in events] == [Received, ProtocolFailed]
    assert wire.sent() == [p.Disconnect(0x93)]
    wire.session.acknowledge([1])
    assert wire.sent() == []


def test_a_qos_2_exchange_counts_until_it_is_complete() -> None:
    wire = Wire(receive_maximum=1, receive_excess=0)
    wire.connect()
    wire.send(p.Publish("a", b"", 2, packet_id=1))
    wire.session.acknowledge([1])
    assert wire.sent() == [p.Pubrec(1)]
    assert [type(event) for event in wire.send(p.Publish("a", b"", 1, packet_id=2))] == [Received, ProtocolFailed]


def test_properties_of_a_received_message_are_told_and_its_user_properties_stay_what_they_are() -> None:
    wire = Wire(topic_alias_maximum=1)
    wire.connect()
    bag = PacketProperties(
        topic_alias=1,
        payload_format=1,
        expiry_s=3,
        content_type="c",
        response_topic="r",
        correlation_data=b"d",
        user=(("thing", "x"),),
        subscription_ids=(4,),
    )
    expected = Properties("r", b"d", "c", True, 3, (("thing", "x"),))
    first = p.Publish("t", b"1", 1, packet_id=1, properties=bag)
    second = p.Publish("", b"2", 1, packet_id=2, properties=PacketProperties(topic_alias=1))
    assert wire.send(first, second) == [
        Received([Message("t", b"1", 1, receipt=1, properties=expected), Message("t", b"2", 1, receipt=2)])
    ]


def test_an_alias_beyond_the_maximum_or_never_set_ends_the_connection() -> None:
    for alias, code in ((2, 0x94), (1, 0x82)):
        wire = Wire(topic_alias_maximum=1)
        wire.connect()
        (event,) = wire.send(p.Publish("", b"", properties=PacketProperties(topic_alias=alias)))
        assert isinstance(event, ProtocolFailed)
        assert wire.sent() == [p.Disconnect(code)]


@BOTH
def test_what_came_before_a_malformed_packet_is_told_before_the_failure(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    raw = encode(p.Publish("a", b"", 1, packet_id=1), version) + b"\x36\0"
    events = wire.session.receive(raw, 0.0)
    assert [type(event) for event in events] == [Received, ProtocolFailed]
    assert wire.sent() == ([p.Disconnect(0x81)] if version == V5 else [])


@BOTH
@pytest.mark.parametrize("wrong", [p.Puback(2), p.Pubrec(1), p.Pubcomp(1), p.Pubcomp(2), p.Pubrel(9)])
def test_an_answer_that_does_not_fit_the_exchange_is_an_error(version: int, wrong: Packet) -> None:
    wire = Wire(version)
    wire.connect()
    wire.session.publish([*_messages("a"), *_messages("b", qos=2)], None)
    wire.send(p.Publish("c", b"", 2, packet_id=9))
    (event,) = wire.send(wrong)
    assert isinstance(event, ProtocolFailed)
    assert event.code == 0x82
    assert wire.session.in_flight == 2


@BOTH
def test_answers_nobody_waits_for_are_let_pass(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    assert wire.send(p.Puback(1), p.Pubcomp(1), p.Suback(1, (0,)), p.Pubrec(4)) == []
    assert wire.sent() == [p.Pubrel(4, 0x92 if version == V5 else 0)]


# Subscriptions, DISCONNECT, AUTH


@BOTH
def test_subscriptions_are_told_by_their_packet_id(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    entry = Subscription("a/#", 1, no_local=True, retain_handling=2)
    assert wire.session.subscribe([entry, Subscription("b")], 9) == 1
    assert wire.session.unsubscribe(["c"]) == 2
    if version == V5:
        bag = PacketProperties(subscription_ids=(9,))
        assert wire.sent() == [p.Subscribe(1, (entry, Subscription("b")), bag), p.Unsubscribe(2, ("c",))]
        assert wire.send(p.Suback(1, (1, 0x87), PacketProperties(reason="no"))) == [Subscribed(1, (1, 0x87), "no")]
        assert wire.send(p.Unsuback(2, (0x11,))) == [Unsubscribed(2, (0x11,))]
    else:
        assert wire.sent() == [p.Subscribe(1, (Subscription("a/#", 1), Subscription("b"))), p.Unsubscribe(2, ("c",))]
        assert wire.send(p.Suback(1, (1, 0x80))) == [Subscribed(1, (1, 0x80))]
        assert wire.send(p.Unsuback(2)) == [Unsubscribed(2, ())]


def test_an_answer_to_another_request_or_of_another_length_is_an_error() -> None:
    for answer in (p.Unsuback(1, (0,)), p.Suback(1, (0, 0))):
        wire = Wire()
        wire.connect()
        wire.session.subscribe([Subscription("a")])
        (event,) = wire.send(answer)
        assert isinstance(event, ProtocolFailed)


def test_a_subscription_needs_a_connection_a_filter_and_an_end_to_asking() -> None:
    wire = Wire()
    with pytest.raises(TransientError):
        wire.session.subscribe([Subscription("a")])
    wire.connect()
    with pytest.raises(InputRejected):
        wire.session.subscribe([Subscription("a/#/b")])
    for _ in range(1000):
        wire.session.subscribe([Subscription("a")])
    with pytest.raises(TransientError):
        wire.session.unsubscribe(["a"])


def test_the_servers_goodbye_is_told_after_what_came_before_it() -> None:
    wire = Wire()
    wire.connect()
    goodbye = p.Disconnect(0x8B, PacketProperties(reason="maintenance", server_reference="there"))
    assert wire.send(p.Publish("a", b""), goodbye, p.Publish("late", b"")) == [
        Received([Message("a", b"")]),
        Disconnected(0x8B, "server_shutting_down", "maintenance", "there"),
    ]
    assert wire.session.ended


def test_a_server_of_311_never_says_goodbye() -> None:
    wire = Wire(V311)
    wire.connect()
    (event,) = wire.send(p.Disconnect())
    assert isinstance(event, ProtocolFailed)


@BOTH
def test_our_goodbye_goes_out_last(version: int) -> None:
    wire = Wire(version)
    wire.connect()
    wire.send(p.Publish("a", b"", 1, packet_id=1))
    wire.session.disconnect()
    wire.session.acknowledge([1])
    assert wire.sent() == [p.Disconnect()]
    assert wire.session.deadline() is None


def test_a_goodbye_that_lets_the_will_be_published() -> None:
    for version, packets in ((V5, [p.Disconnect(4)]), (V311, [])):
        wire = Wire(version)
        wire.connect()
        wire.session.disconnect(4)
        assert wire.sent() == packets


def test_authentication_passes_through() -> None:
    wire = Wire(authentication_method="SCRAM", authentication_data=b"hello")
    wire.open()
    challenge = PacketProperties(authentication_method="SCRAM", authentication_data=b"prove")
    assert wire.send(p.Auth(0x18, challenge)) == [AuthChallenge(0x18, "SCRAM", b"prove")]
    wire.session.authenticate(b"proof")
    answer = PacketProperties(authentication_method="SCRAM", authentication_data=b"proof")
    assert wire.sent() == [p.Auth(0x18, answer)]
    (event,) = wire.send(p.Connack(properties=challenge))
    assert isinstance(event, Connected)
    assert event.authentication_data == b"prove"
    wire.session.authenticate(b"again", 0x19)
    assert wire.sent() == [p.Auth(0x19, PacketProperties(authentication_method="SCRAM", authentication_data=b"again"))]
    assert wire.send(p.Auth(0, PacketProperties(authentication_method="SCRAM"))) == [AuthChallenge(0, "SCRAM", None)]


def test_authentication_nobody_asked_for_is_an_error() -> None:
    for wire in (Wire(), Wire(authentication_method="other")):
        wire.connect()
        (event,) = wire.send(p.Auth(0x18, PacketProperties(authentication_method="SCRAM")))
        assert isinstance(event, ProtocolFailed)


# Time


@BOTH
def test_an_idle_connection_is_kept_alive_and_silence_is_found_out(version: int) -> None:
    wire = Wire(version, keepalive_s=10, ping_timeout_s=3)
    wire.connect(now=100)
    assert wire.session.deadline() == 110
    assert wire.session.tick(109.9) == []
    assert wire.sent() == []
    assert wire.session.tick(110) == []
    assert wire.sent() == [p.Pingreq()]
    assert wire.session.deadline() == 113
    assert wire.send(p.Pingresp(), now=111) == []
    assert wire.session.deadline() == 120
    wire.session.tick(120)
    assert wire.sent() == [p.Pingreq()]
    (event,) = wire.session.tick(123)
    assert isinstance(event, ProtocolFailed)
    assert (event.code, event.reason) == (0x8D, "keep_alive")
    assert wire.session.ended
    assert wire.session.deadline() is None


def test_a_client_that_only_hears_still_speaks_in_time() -> None:
    wire = Wire(keepalive_s=10)
    wire.connect(now=0)
    for now in range(1, 10):
        wire.send(p.Publish("a", b""), now=now)
    assert wire.session.deadline() == 10
    wire.session.tick(10)
    assert wire.sent() == [p.Pingreq()]


def test_a_client_that_only_speaks_still_finds_out_a_dead_server() -> None:
    wire = Wire(keepalive_s=10, ping_timeout_s=3)
    wire.connect(now=0)
    for now in range(1, 10):
        wire.session.publish([Message("a", b"")], None)
        wire.session.output()
        wire.session.tick(now)
    wire.session.tick(10)
    assert [type(event) for event in wire.session.tick(13)] == [ProtocolFailed]


def test_while_nobody_reads_silence_says_nothing_and_reading_goes_on_when_answers_are_out() -> None:
    wire = Wire(keepalive_s=10, ping_timeout_s=3, receive_maximum=2)
    wire.connect(now=0)
    assert wire.session.wants_input
    wire.send(*(p.Publish("a", b"", 1, packet_id=number) for number in range(1, 5)), now=0)
    assert not wire.session.wants_input
    for now in range(10, 100):
        assert wire.session.tick(now) == []
    wire.session.acknowledge([1])
    assert wire.session.wants_input
    assert [type(event) for event in wire.session.tick(103)] == [ProtocolFailed]


def test_no_keep_alive_means_no_deadline() -> None:
    wire = Wire(keepalive_s=0)
    wire.connect()
    assert wire.session.deadline() is None
    wire.session.tick(1e9)
    assert wire.sent() == []


def test_a_server_that_never_answers_connect_is_given_up() -> None:
    wire = Wire(connect_timeout_s=5)
    wire.open(now=50)
    assert wire.session.deadline() == 55
    (event,) = wire.session.tick(55)
    assert isinstance(event, ProtocolFailed)
    assert event.reason == "connect_timeout"
    assert wire.sent() == []
