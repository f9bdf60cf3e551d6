"""Bytes to packets, however they are cut: `Parser` for either side's packets, `BulkReader` for a client's hot path.

Invariants: bytes of an unfinished packet are kept as they came and joined once, when the packet can be whole; never
more than packet_bytes_max of them. What stood before a malformed packet is handed over first, the error after it. A
PUBLISH above the maximum is an error, but to a BulkReader of MQTT 3.1.1, where no server can know of one: it is passed
over.
"""

import struct
from typing import Final, TypeAlias

import msgspec

from edge.messages import Message, Properties
from edge.mqtt import packets
from edge.mqtt.codes import (
    MALFORMED_PACKET,
    PACKET_TOO_LARGE,
    PROTOCOL_ERROR,
    PUBLISH,
    TOPIC_ALIAS_INVALID,
    V5,
    ProtocolError,
)
from edge.mqtt.decode import decode
from edge.mqtt.packets import Packet
from edge.mqtt.properties import NONE, PacketProperties

TOPICS_CACHED_MAX: Final = 4096
BLOCKS_CACHED_MAX: Final = 512
BLOCK_BYTES_MAX: Final = 64
_PUBACKS: Final = [struct.Struct(f">{count}I") for count in range(65)]


class _Framing:
    """Cuts the stream into packets."""

    def __init__(self, version: int, packet_bytes_max: int) -> None:
        self.version = version
        self.packet_bytes_max = packet_bytes_max
        self.error: ProtocolError | None = None
        self._passes_over = False
        self._parts: list[bytes] = []
        self._have = self._need = 0

    def _gather(self, data: bytes) -> bytes:
        """What was kept and data as one; b'' while that cannot be a whole packet yet."""
        if not self._parts:
            return data
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return b""
        data = b"".join(self._parts)
        self._parts = []
        return data

    def _keep(self, data: bytes, pos: int, need: int) -> None:
        """need: how many bytes from pos on have to be there before it is worth looking again."""
        rest = data[pos:]
        if rest:
            self._parts, self._have, self._need = [rest], len(rest), need

    def _measure(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
        """Where the body of the packet at pos starts and ends; (0, 0) while its length is not all there (2.1.4)."""
        size, shift, body = 0, 0, pos + 1
        while True:
            if body >= end:
                return 0, 0
            byte = data[body]
            body += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift == 28:
                raise ProtocolError("remaining_length", "more than four bytes", MALFORMED_PACKET, "2.1.4")
        if shift and not byte and self.version == V5:
            raise ProtocolError("remaining_length", "not in its shortest form", MALFORMED_PACKET, "1.5.5")
        if body + size - pos > self.packet_bytes_max and not (self._passes_over and data[pos] >> 4 == PUBLISH):
            detail = f"{body + size - pos} bytes, at most {self.packet_bytes_max}"
            raise ProtocolError("packet_too_large", detail, PACKET_TOO_LARGE, "3.1.2.11.4")
        return body, body + size


class Parser(_Framing):
    """Packets of either side. Version follows a CONNECT that is read."""

    def __init__(self, version: int = V5, packet_bytes_max: int = 1 << 20) -> None:
        super().__init__(version, packet_bytes_max)

    def feed(self, data: bytes) -> list[Packet]:
        """data: any length, may cut a packet anywhere. Raises ProtocolError; if packets stood before the error in the
        same data they are returned, and the next call raises it."""
        if self.error is not None:
            raise self.error
        found: list[Packet] = []
        data = self._gather(data)
        pos, end, need = 0, len(data), 2
        try:
            while pos + 1 < end:
                body, stop = self._measure(data, pos, end)
                if not body or stop > end:
                    need = stop - pos if body else end - pos + 1
                    break
                packet = decode(data[pos], data, body, stop, self.version)
                if isinstance(packet, packets.Connect):
                    self.version = packet.version
                found.append(packet)
                pos = stop
        except ProtocolError as error:
            self.error = error
            if not found:
                raise
            return found
        self._keep(data, pos, need)
        return found


class Run:
    """What came in a row on the hot path. receipts: those of the messages with QoS 1; acknowledged: packet ids of
    PUBACKs with success. The two ways are independent, so their order to each other is not kept."""

    __slots__ = ("acknowledged", "messages", "receipts")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.receipts: list[int] = []
        self.acknowledged: list[int] = []


class Oversized(msgspec.Struct, frozen=True):
    """A PUBLISH above the maximum, that many bytes long, without most of its payload: of no use but to be answered."""

    packet: packets.Publish
    bytes: int


Item: TypeAlias = Run | Packet | Oversized


class BulkReader(_Framing):
    """What a server sends: runs of QoS 0/1 messages and PUBACKs without a struct for each packet, all else as packets.

    The topic of a QoS 2 PUBLISH is resolved too. One reader lives for one connection.
    """

    def __init__(self, version: int, packet_bytes_max: int, alias_maximum: int, receipt_base: int) -> None:
        """receipt_base is added to the packet id of a message to make its receipt."""
        super().__init__(version, packet_bytes_max)
        self._passes_over = version != V5
        self._skip = 0  # bytes still to come of what is passed over
        self._alias_maximum = alias_maximum
        self._base = receipt_base
        self._aliases: dict[int, str] = {}
        self._topics: dict[bytes, str] = {}
        self._blocks: dict[bytes, tuple[Properties | None, int | None]] = {}

    def feed(self, data: bytes) -> list[Item]:
        """Never raises: `error` is set when what followed broke the standard."""
        if self.error is not None:
            return []
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        data = self._gather(data)
        items: list[Item] = []
        try:
            self._cut(data, items)
        except ProtocolError as error:
            self.error = error
        return items

    def _cut(self, data: bytes, items: list[Item]) -> None:
        run = Run()
        messages, receipts = run.messages, run.receipts
        topics, blocks, base = self._topics, self._blocks, self._base
        small = min(self.packet_bytes_max - 2, 0x7F)
        skip = 1 if self.version == V5 else 0
        pos, end, need = 0, len(data), 2
        try:
            while pos + 1 < end:
                first = data[pos]
                size = data[pos + 1]
                if size <= small:
                    body = pos + 2
                    stop = body + size
                else:
                    body, stop = self._measure(data, pos, end)
                    if not body:
                        need = end - pos + 1
                        break
                    size = stop - body
                    if stop - pos > self.packet_bytes_max:
                        if end - pos < self.packet_bytes_max:
                            need = self.packet_bytes_max
                            break
                        if messages or run.acknowledged:
                            items.append(run)
                            run = Run()
                            messages, receipts = run.messages, run.receipts
                        packet = decode(first, data, body, pos + self.packet_bytes_max, self.version)
                        assert isinstance(packet, packets.Publish)
                        items.append(Oversized(packet, stop - pos))
                        self._skip = max(stop - end, 0)
                        pos = min(stop, end)
                        continue
                if stop > end:
                    need = stop - pos
                    break
                if first == 0x32 and size > 4:
                    # A QoS 1 PUBLISH, neither retained nor repeated: what a relay lives on.
                    mark = body + 2 + (data[body] << 8 | data[body + 1])
                    start = mark + 2 + skip
                    if start <= stop:
                        topic = topics.get(data[body + 2 : mark])
                        packet_id = data[mark] << 8 | data[mark + 1]
                        if packet_id:
                            if not (skip and data[start - 1]):
                                if topic is not None:
                                    receipt = base + packet_id
                                    messages.append(Message(topic, data[start:stop], 1, False, receipt))
                                    receipts.append(receipt)
                                    pos = stop
                                    continue
                            elif start + data[start - 1] <= stop:
                                block = data[start : start + data[start - 1]]
                                known = blocks.get(block)
                                if known is not None and (topic is not None or mark == body + 2):
                                    properties, alias = known
                                    if alias is not None:
                                        topic = self._resolve(topic or "", alias)
                                    if topic:
                                        start += len(block)
                                        receipt = base + packet_id
                                        messages.append(Message(topic, data[start:stop], 1, False, receipt, properties))
                                        receipts.append(receipt)
                                        pos = stop
                                        continue
                elif first == 0x30 and size > 1:
                    mark = body + 2 + (data[body] << 8 | data[body + 1])
                    start = mark + skip
                    if start <= stop and not (skip and data[mark]):
                        topic = topics.get(data[body + 2 : mark])
                        if topic is not None:
                            messages.append(Message(topic, data[start:stop]))
                            pos = stop
                            continue
                elif first == 0x40 and size == 2 and stop == pos + 4:
                    ids = _puback_ids(data, pos, end)
                    if ids:
                        run.acknowledged += ids
                        pos += 4 * len(ids)
                        continue
                packet = decode(first, data, body, stop, self.version)
                if isinstance(packet, packets.Publish):
                    packet = self._resolved(packet, data, body)
                    if packet.qos < 2:
                        message = to_message(packet, base + packet.packet_id if packet.qos else 0)
                        messages.append(message)
                        if packet.qos:
                            receipts.append(message.receipt)
                        pos = stop
                        continue
                if messages or run.acknowledged:
                    items.append(run)
                    run = Run()
                    messages, receipts = run.messages, run.receipts
                items.append(packet)
                pos = stop
        finally:
            if messages or run.acknowledged:
                items.append(run)
        self._keep(data, pos, need)

    def _resolve(self, topic: str, alias: int) -> str:
        """The topic an alias stands for; with a topic the alias is set to it (3.3.2.3.4)."""
        if alias > self._alias_maximum:
            detail = f"{alias}, at most {self._alias_maximum}"
            raise ProtocolError("topic_alias", detail, TOPIC_ALIAS_INVALID, "3.3.2.3.4")
        if topic:
            self._aliases[alias] = topic
            return topic
        known = self._aliases.get(alias)
        if known is None:
            raise ProtocolError("topic_alias", f"{alias} was never set", PROTOCOL_ERROR, "3.3.2.3.4")
        return known

    def _resolved(self, packet: packets.Publish, data: bytes, body: int) -> packets.Publish:
        """The packet with its topic; what it taught goes into the caches."""
        topic, found = packet.topic, packet.properties
        raw_end = body + 2 + (data[body] << 8 | data[body + 1])
        if topic:
            if len(self._topics) >= TOPICS_CACHED_MAX:
                self._topics.clear()
            self._topics[data[body + 2 : raw_end]] = topic
        if found is not NONE:
            place = raw_end + (2 if packet.qos else 0)
            size = data[place]
            if size <= BLOCK_BYTES_MAX:
                if len(self._blocks) >= BLOCKS_CACHED_MAX:
                    self._blocks.clear()
                self._blocks[data[place + 1 : place + 1 + size]] = (to_properties(found), found.topic_alias)
        if found.topic_alias is None:
            return packet
        topic = self._resolve(topic, found.topic_alias)
        return packets.Publish(
            topic, packet.payload, packet.qos, packet.retain, packet.dup, packet.packet_id, packet.properties
        )


def _puback_ids(data: bytes, pos: int, end: int) -> list[int]:
    """Packet ids of the PUBACKs with success that stand in a row at pos, at most 64; stops before one of id 0."""
    if data[pos + 4 : pos + 6] != b"\x40\x02":
        packet_id = data[pos + 2] << 8 | data[pos + 3]
        return [packet_id] if packet_id else []
    words = _PUBACKS[min((end - pos) >> 2, 64)].unpack_from(data, pos)
    if max(words) <= 0x4002_FFFF and min(words) > 0x4002_0000:
        return [word & 0xFFFF for word in words]
    ids = []
    for word in words:
        if not 0x4002_0000 < word <= 0x4002_FFFF:
            break
        ids.append(word & 0xFFFF)
    return ids


def to_properties(found: PacketProperties) -> Properties | None:
    """What of a PUBLISH's properties travels end to end; None when nothing does."""
    properties = Properties(
        found.response_topic,
        found.correlation_data,
        found.content_type,
        bool(found.payload_format),
        found.expiry_s,
        found.user,
    )
    return None if properties == _PLAIN else properties


_PLAIN: Final = Properties()


def to_message(packet: packets.Publish, receipt: int) -> Message:
    properties = None if packet.properties is NONE else to_properties(packet.properties)
    return Message(packet.topic, packet.payload, packet.qos, packet.retain, receipt, properties)
