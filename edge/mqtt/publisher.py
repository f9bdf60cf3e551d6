"""Messages to the bytes of PUBLISH packets, in bulk: what repeats from message to message is built once.

One publisher lives for one connection: topic aliases end with it (MQTT 5.0, 3.3.2.3.4).
"""

from typing import Final, NamedTuple

import msgspec

from edge.errors import InputRejected
from edge.messages import Message, Reading, others
from edge.mqtt import codes, properties, wire
from edge.mqtt.codes import PACKET_TOO_LARGE, QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, V5, V311, ProtocolError
from edge.mqtt.properties import NONE, PacketProperties
from edge.topics import check_topic

FORMS_CACHED_MAX: Final = 4096
HEADS_CACHED_MAX: Final = 4096
THINGS_CACHED_MAX: Final = 1024
NAMED_CACHED_MAX: Final = 2048  # of all things: a rule's rows go to a topic a board


class Form(NamedTuple):
    """How a topic is written: `topic`, then (packet id << shift | tail) in `size` bytes, which holds the packet id,
    the property length and the alias, if any. `length`: all of it."""

    topic: bytes
    shift: int
    tail: int
    size: int
    length: int


class Named(NamedTuple):
    """How a reading of one thing and boot is written to one topic: `topic`, the packet id, a middle (by the lengths of
    sequence and stamp: property length, alias, thing, boot, the name and length of `seq`), the sequence, the stamp."""

    topic: bytes
    block: bytes
    middles: dict[int, bytes]


class Publisher:
    """forms, heads and named (thing -> boot and topics) are read by the session's loop; a miss in one of them goes
    through `build`. names: whether readings are named, by MQTT 5 user properties."""

    def __init__(
        self, version: int, alias_maximum: int, packet_bytes_max: int, qos_maximum: int, retain_available: bool
    ) -> None:
        self.forms: dict[str, Form] = {}
        self.named: dict[str, tuple[int, dict[str, Named]]] = {}
        self.names = version == V5
        self.heads: dict[int, bytes] = {}  # remaining length -> first bytes of a plain QoS 1 PUBLISH
        self.remaining_max = min(packet_bytes_max - 5, wire.VARINT_MAX)
        self._version = version
        self._packet_bytes_max = packet_bytes_max
        self._alias_maximum = alias_maximum
        self._aliases: dict[str, int] = {}
        self._qos_maximum = qos_maximum
        self._retain_available = retain_available
        self._things: dict[str, tuple[int, bytes]] = {}
        self._named = 0  # topics in `named`, and those of boots before

    def head(self, remaining: int) -> bytes:
        """First byte and remaining length of a plain QoS 1 PUBLISH."""
        if len(self.heads) >= HEADS_CACHED_MAX:
            self.heads.clear()
        self.heads[remaining] = head = b"\x32" + wire.varint(remaining)
        return head

    def middle(self, named: Named, sequence: int, stamp: int) -> bytes:
        """For so many bytes of either."""
        length = len(named.block) + 2 + sequence + stamp
        found = named.middles[sequence << 8 | stamp] = wire.varint(length) + named.block + sequence.to_bytes(2, "big")
        return found

    def fitted(self, message: Message) -> Message:
        """The message as this server can take it: QoS 2 becomes 1 where that is its most (3.2.2.3.4). Raises
        InputRejected for what it can never take."""
        if message.qos > self._qos_maximum:
            if not self._qos_maximum:
                raise ProtocolError("qos_not_supported", f"QoS {message.qos}", QOS_NOT_SUPPORTED, "3.2.2.3.4")
            message = msgspec.structs.replace(message, qos=self._qos_maximum)
        if message.retain and not self._retain_available:
            raise ProtocolError("retain_not_supported", message.topic[:80], RETAIN_NOT_SUPPORTED, "3.2.2.3.5")
        return message

    def build(self, message: Message, packet_id: int, dup: bool) -> bytes:
        """The PUBLISH of any message. Raises InputRejected for a topic or property no server takes, or one too large;
        then nothing of the publisher has changed."""
        topic = message.topic
        qos, payload = message.qos, message.payload
        form = self.forms.get(topic)
        later = None
        if form is None:
            form, later = self._first(topic)
        raw, shift, tail, size, _ = form
        if qos:
            mark = (packet_id << shift | tail).to_bytes(size, "big")
        else:
            mark = tail.to_bytes(size - 2, "big")
        if message.properties is not None or (message.reading is not None and self.names):
            block = self._properties(message)
            if block:
                # The property length stands right behind the packet id; an alias, 3 bytes, is the first property.
                start = 2 if qos else 0
                block = mark[start + 1 :] + block
                mark = mark[:start] + wire.varint(len(block)) + block
        remaining = len(raw) + len(mark) + len(payload)
        if remaining > self.remaining_max:
            raise ProtocolError("packet_too_large", f"{remaining} bytes", PACKET_TOO_LARGE, "3.2.2.3.6")
        if later is not None:
            self._remember(topic, later)
            form = later
        if message.reading is not None and message.properties is None and self.names:
            self._remember_named(topic, form, message.reading)
        if qos == 1 and not dup and not message.retain:
            return b"".join((self.heads.get(remaining) or self.head(remaining), raw, mark, payload))
        first = codes.PUBLISH << 4 | dup << 3 | qos << 1 | message.retain
        return b"".join((bytes((first,)), wire.varint(remaining), raw, mark, payload))

    def _first(self, topic: str) -> tuple[Form, Form]:
        """How a topic new to this connection is written now, and how from then on."""
        check_topic(topic)
        raw = topic.encode()
        full = len(raw).to_bytes(2, "big") + raw
        if self._version == V311:
            form = Form(full, 0, 0, 2, len(full) + 2)
            return form, form
        known = self._aliases.get(topic)
        if known is None and len(self._aliases) >= self._alias_maximum:
            form = Form(full, 8, 0, 3, len(full) + 3)
            return form, form
        alias = known or len(self._aliases) + 1
        tail = 0x03_23_0000 | alias
        short = Form(b"\0\0", 32, tail, 6, 8)
        return short if known else Form(full, 32, tail, 6, len(full) + 6), short

    def _remember(self, topic: str, form: Form) -> None:
        if len(self.forms) >= FORMS_CACHED_MAX:
            self.forms.clear()
        self.forms[topic] = form
        if form.size == 6:
            self._aliases[topic] = form.tail & 0xFFFF

    def _remember_named(self, topic: str, form: Form, reading: Reading) -> None:
        known = self.named.get(reading.thing)
        if self._named >= NAMED_CACHED_MAX:
            self.named.clear()
            self._named, known = 0, None
        if known is None or known[0] != reading.boot:
            known = self.named[reading.thing] = (reading.boot, {})
        self._named += 1
        alias = form.tail.to_bytes(form.size - 2, "big")[1:]
        known[1][topic] = Named(form.topic, alias + self._things[reading.thing][1], {})

    def _properties(self, message: Message) -> bytes:
        """The properties without their length. What names a reading is this gateway's word alone."""
        given, reading = message.properties, message.reading
        block = b""
        if given is not None:
            if self._version == V311:
                return b""
            found = PacketProperties(
                payload_format=1 if given.payload_is_utf8 else None,
                expiry_s=given.expiry_s,
                content_type=given.content_type,
                response_topic=given.response_topic,
                correlation_data=given.correlation_data,
                user=given.user if reading is None else tuple(others(given.user)),
            )
            block = properties.encode(found, codes.PUBLISH) if found != NONE else b"\0"
            _, start = wire.read_varint(block, 0, len(block), "property length")
            block = block[start:]
        if reading is not None:
            thing = self._things.get(reading.thing)
            if thing is None or thing[0] != reading.boot:
                thing = self._thing(reading.thing, reading.boot)
            sequence = b"%d" % reading.sequence
            block += thing[1] + len(sequence).to_bytes(2, "big") + sequence
            block += stamp_of(message.time_ms)
        return block

    def _thing(self, name: str, boot: int) -> tuple[int, bytes]:
        """The user properties `thing` and `boot` whole, and the name of `seq`."""
        if len(self._things) >= THINGS_CACHED_MAX:
            self._things.clear()
        pairs = b"".join(
            b"&" + wire.text(key, key) + wire.text(value, key) for key, value in (("thing", name), ("boot", str(boot)))
        )
        self._things[name] = entry = (boot, pairs + b"&" + wire.text("seq", "seq"))
        return entry


def stamp_of(time_ms: int) -> bytes:
    """The user property `t`; nothing for 0."""
    if not time_ms:
        return b""
    stamp = b"%d" % time_ms
    return b"&\0\1t" + len(stamp).to_bytes(2, "big") + stamp


def reason_of(error: InputRejected) -> int:
    """The reason code a message that could not be built is settled with."""
    return error.reason_code if isinstance(error, ProtocolError) else codes.TOPIC_NAME_INVALID
