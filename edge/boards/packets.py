"""The messages of MQTT-SN 1.2, one struct each. Pure: `mqttsn.py` reads and writes them."""

from typing import Final

import msgspec

from edge.errors import InputRejected

# Topic id types (5.3.4). For NORMAL in SUBSCRIBE and UNSUBSCRIBE the field holds a name, for SHORT two characters.
NORMAL: Final = 0
PREDEFINED: Final = 1
SHORT: Final = 2

# Return codes (5.3.10).
ACCEPTED: Final = 0
CONGESTION: Final = 1
INVALID_TOPIC_ID: Final = 2
NOT_SUPPORTED: Final = 3

MESSAGE_BYTES_MAX: Final = 65535
CLIENT_ID_BYTES_MAX: Final = 128
NODE_ID_BYTES_MAX: Final = 252


class Advertise(msgspec.Struct, frozen=True, gc=False):
    """duration_s: until the gateway advertises again (5.4.1)."""

    gateway_id: int
    duration_s: int


class SearchGw(msgspec.Struct, frozen=True, gc=False):
    """radius: 0 means to all nodes (5.4.2)."""

    radius: int = 0


class GwInfo(msgspec.Struct, frozen=True, gc=False):
    """address: empty when the gateway itself answers (5.4.3)."""

    gateway_id: int
    address: bytes = b""


class Connect(msgspec.Struct, frozen=True, gc=False):
    """duration_s: the keep-alive (5.4.4)."""

    client_id: str
    duration_s: int
    will: bool = False
    clean_session: bool = False


class ConnAck(msgspec.Struct, frozen=True, gc=False):
    return_code: int = ACCEPTED


class WillTopicReq(msgspec.Struct, frozen=True, gc=False):
    pass


class WillTopic(msgspec.Struct, frozen=True, gc=False):
    """topic: '' deletes the will, and then there are no flags (5.4.7)."""

    topic: str = ""
    qos: int = 0
    retain: bool = False


class WillMsgReq(msgspec.Struct, frozen=True, gc=False):
    pass


class WillMsg(msgspec.Struct, frozen=True, gc=False):
    message: bytes = b""


class Register(msgspec.Struct, frozen=True, gc=False):
    """topic_id: 0 from a client (5.4.10)."""

    topic_id: int
    message_id: int
    topic: str


class RegAck(msgspec.Struct, frozen=True, gc=False):
    topic_id: int
    message_id: int
    return_code: int = ACCEPTED


class Publish(msgspec.Struct, frozen=True, gc=False):
    """qos: -1, 0, 1 or 2; message_id: for 1 and 2 only; a SHORT topic's name is `short_topic(topic_id)`."""

    topic_id: int
    payload: bytes
    message_id: int = 0
    qos: int = 0
    topic_type: int = NORMAL
    retain: bool = False
    dup: bool = False


class PubAck(msgspec.Struct, frozen=True, gc=False):
    topic_id: int
    message_id: int
    return_code: int = ACCEPTED


class PubComp(msgspec.Struct, frozen=True, gc=False):
    message_id: int


class PubRec(msgspec.Struct, frozen=True, gc=False):
    message_id: int


class PubRel(msgspec.Struct, frozen=True, gc=False):
    message_id: int


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """topic: the filter (NORMAL) or the two-character one (SHORT); topic_id: for PREDEFINED. The other is empty.

    A SHORT one may be a filter such as `/#`: stock clients call every two characters a short topic.
    """

    message_id: int
    topic: str = ""
    topic_id: int = 0
    topic_type: int = NORMAL
    qos: int = 0
    dup: bool = False


class SubAck(msgspec.Struct, frozen=True, gc=False):
    """topic_id: 0 after a filter with wildcards (5.4.16). qos: the granted one."""

    topic_id: int
    message_id: int
    return_code: int = ACCEPTED
    qos: int = 0


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    """Fields as in Subscribe."""

    message_id: int
    topic: str = ""
    topic_id: int = 0
    topic_type: int = NORMAL


class UnsubAck(msgspec.Struct, frozen=True, gc=False):
    message_id: int


class PingReq(msgspec.Struct, frozen=True, gc=False):
    """client_id: given by a sleeping client that asks for what waits (5.4.19)."""

    client_id: str = ""


class PingResp(msgspec.Struct, frozen=True, gc=False):
    pass


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """duration_s: given by a client that goes to sleep (5.4.21)."""

    duration_s: int | None = None


class WillTopicUpd(msgspec.Struct, frozen=True, gc=False):
    """topic: '' deletes the will (5.4.22)."""

    topic: str = ""
    qos: int = 0
    retain: bool = False


class WillTopicResp(msgspec.Struct, frozen=True, gc=False):
    return_code: int = ACCEPTED


class WillMsgUpd(msgspec.Struct, frozen=True, gc=False):
    message: bytes = b""


class WillMsgResp(msgspec.Struct, frozen=True, gc=False):
    return_code: int = ACCEPTED


class Forwarded(msgspec.Struct, frozen=True, gc=False):
    """Forwarder encapsulation (5.5). node_id: 1–252 bytes; message: encoded, not Forwarded itself; radius: 0 to 3."""

    node_id: bytes
    message: bytes
    radius: int = 0


Packet = (
    Advertise
    | SearchGw
    | GwInfo
    | Connect
    | ConnAck
    | WillTopicReq
    | WillTopic
    | WillMsgReq
    | WillMsg
    | Register
    | RegAck
    | Publish
    | PubAck
    | PubComp
    | PubRec
    | PubRel
    | Subscribe
    | SubAck
    | Unsubscribe
    | UnsubAck
    | PingReq
    | PingResp
    | Disconnect
    | WillTopicUpd
    | WillTopicResp
    | WillMsgUpd
    | WillMsgResp
    | Forwarded
)


class PacketRejected(InputRejected):
    """answer: what a gateway may send back to a connected client so that it need not wait; often None.

    reason: too_short, bad_length, unknown_type, bad_flags, as in the C decoder; return_code, protocol_id,
    client_id_{too_long,nul,utf8}, topic_{nul,utf8,wildcard,too_long}, filter_wildcard.
    """

    def __init__(self, reason: str, detail: str = "", answer: Packet | None = None) -> None:
        super().__init__(reason, detail)
        self.answer = answer
