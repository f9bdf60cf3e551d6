"""What the server publishes to us, until it is answered: the receiving half of QoS 1 and 2.

Invariants:
- `_owed` holds, in the order they came, the receipts of this connection that are not answered; answers go out in that
  order (MQTT 5.0, 4.6). A receipt is the packet id, above it the number of the connection, so that a late
  acknowledgement never meets another message.
- `_twice` holds the QoS 2 packet ids from PUBLISH to PUBREL, over connections (4.3.3).
"""

import struct
from collections.abc import Sequence
from itertools import islice
from typing import Final

from edge.messages import Message
from edge.mqtt import codes, packets
from edge.mqtt.codes import PROTOCOL_ERROR, V5, ProtocolError
from edge.mqtt.reader import to_message

_WAITING: Final = -1


class _Twice:
    """A QoS 2 message on its way in. reason: _WAITING, or what it was acknowledged with; seen: the connection whose
    PUBLISH it last was."""

    __slots__ = ("reason", "receipt", "seen")

    def __init__(self, receipt: int, seen: int) -> None:
        self.receipt, self.seen, self.reason = receipt, seen, _WAITING


class Inbound:
    """out: where packets to be written are added. unanswered_max: more than that of MQTT 5 is an error."""

    def __init__(self, version: int, out: list[bytes], unanswered_max: int) -> None:
        self._version, self._v5, self._out, self._unanswered_max = version, version == V5, out, unanswered_max
        self._connection = 0
        self._owed: dict[int, int] = {}
        self._twice: dict[int, _Twice] = {}

    @property
    def unanswered(self) -> int:
        return len(self._owed)

    def begin(self, connection: int) -> None:
        """A connection, by its number: what the last one owed is let go."""
        for receipt, reason in self._owed.items():
            known = self._twice.get(receipt & 0xFFFF)
            if reason != _WAITING and known is not None and known.receipt == receipt:
                known.reason = reason  # acknowledged, but held back behind an older one
        self._owed.clear()
        self._connection = connection

    def forget(self) -> None:
        """The server has no session."""
        self._twice.clear()

    def came(self, receipts: list[int]) -> None:
        """QoS 1 messages, handed over."""
        self._owed.update(dict.fromkeys(receipts, _WAITING))

    def check(self) -> None:
        """The server may have so many publishes unanswered; a QoS 2 one is until PUBCOMP (4.9)."""
        if len(self._owed) + len(self._twice) <= self._unanswered_max or not self._v5:
            return
        here = self._connection
        beyond = sum(1 for one in self._twice.values() if one.seen == here and one.receipt not in self._owed)
        if len(self._owed) + beyond > self._unanswered_max:
            detail = f"{len(self._owed) + beyond} unanswered, at most {self._unanswered_max}"
            raise ProtocolError("receive_maximum", detail, codes.RECEIVE_MAXIMUM_EXCEEDED, "3.1.2.11.3")

    def publish(self, packet: packets.Publish, received: list[Message]) -> None:
        """A QoS 2 PUBLISH: handed over once, however often it comes (4.3.3)."""
        packet_id, here = packet.packet_id, self._connection
        known = self._twice.get(packet_id)
        if known is None:
            receipt = here << 16 | packet_id
            self._twice[packet_id] = _Twice(receipt, here)
            self._owed[receipt] = _WAITING
            received.append(to_message(packet, receipt))
        else:
            known.seen = here
            if known.receipt not in self._owed:
                self._owed[known.receipt] = known.reason
                self._flush_owed()

    def pass_over(self, packet: packets.Publish) -> None:
        """One that nobody is given: answered in its turn, as if it had been taken."""
        receipt = self._connection << 16 | packet.packet_id
        if packet.qos == 1:
            self.came([receipt])
        elif packet.qos == 2:
            self.publish(packet, [])
        if packet.qos:
            self.acknowledge([receipt], 0, speaking=True)

    def _answer_twice(self, packet_id: int, known: _Twice) -> None:
        if known.reason >= 0x80 and self._v5:
            del self._twice[packet_id]
        code = known.reason if self._v5 else 0
        self._out.append(packets.encode(packets.Pubrec(packet_id, code), self._version))

    def pubrel(self, packet: packets.Pubrel) -> None:
        known = self._twice.get(packet.packet_id)
        if known is not None and known.reason == _WAITING:
            raise ProtocolError("pubrel", "without PUBREC", PROTOCOL_ERROR, "4.3.3")
        self._twice.pop(packet.packet_id, None)
        code = codes.PACKET_ID_NOT_FOUND if known is None and self._v5 else 0
        self._out.append(packets.encode(packets.Pubcomp(packet.packet_id, code), self._version))

    def acknowledge(self, receipts: Sequence[int], reason: int, *, speaking: bool) -> None:
        """speaking: answers may go out now; if not, only those to QoS 2 are remembered."""
        if not receipts:
            return
        owed = self._owed if speaking else {}
        if not self._twice and (reason == 0 or not self._v5):
            count = len(receipts)
            if list(islice(owed, count)) == list(receipts):
                # The oldest, in order: the answers go out at once.
                for receipt in receipts:
                    del owed[receipt]
                words = [0x4002_0000 | receipt & 0xFFFF for receipt in receipts]
                self._out.append(struct.pack(f">{count}I", *words))
                if owed:
                    self._flush_owed()
                return
        for receipt in receipts:
            if receipt in owed:
                owed[receipt] = reason
            else:
                known = self._twice.get(receipt & 0xFFFF)
                if known is not None and known.receipt == receipt and known.reason == _WAITING:
                    known.reason = reason  # answered when the server sends it again
        if owed:
            self._flush_owed()

    def _flush_owed(self) -> None:
        """Answer from the oldest on, up to the first that still waits."""
        owed, done = self._owed, []
        for receipt, reason in owed.items():
            if reason == _WAITING:
                break
            done.append(receipt)
            packet_id = receipt & 0xFFFF
            known = self._twice.get(packet_id)
            if known is not None and known.receipt == receipt:
                known.reason = reason
                self._answer_twice(packet_id, known)
            else:
                code = bytes((reason,)) if reason and self._v5 else b""
                self._out.append(bytes((0x40, 2 + len(code))) + packet_id.to_bytes(2, "big") + code)
        for receipt in done:
            del owed[receipt]
