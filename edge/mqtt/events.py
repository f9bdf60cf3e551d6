"""What a session is told to be (`Options`) and what it tells (`Event`)."""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from edge.messages import Message, Origin, Outcome
from edge.mqtt.codes import V5


class Will(msgspec.Struct, frozen=True):
    """Published by the server when the connection ends without DISCONNECT (MQTT 5.0, 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay_s: int = 0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the client asks of the server.

    - window: QoS 1 and 2 publishes in flight at most; the server's receive maximum may lower it. Under 3.1.1 mosquitto
      closes the connection when more QoS 2 publishes are in flight than its max_inflight_messages, 20 by default.
    - receive_maximum: the same, the other way (MQTT 5).
    - receive_excess: how many beyond it are let pass before DISCONNECT with 0x93: mosquitto 2.0.11, as of Debian 12,
      sends two for each PUBACK while it has a backlog.
    - clean_start: for the first connection of this session object; under 3.1.1 CleanSession of every connection.
    - session_expiry_s, topic_alias_maximum, authentication_*, request_response_information: MQTT 5 alone.
    """

    client_id: str
    version: int = V5
    clean_start: bool = True
    keepalive_s: int = 30
    session_expiry_s: int = 0
    window: int = 1000
    receive_maximum: int = 1000
    receive_excess: int = 20_000
    packet_bytes_max: int = 1 << 20
    topic_alias_maximum: int = 100
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_response_information: bool = False
    connect_timeout_s: float = 20.0
    ping_timeout_s: float = 10.0


class Connected(msgspec.Struct, frozen=True):
    """CONNACK with success: what the server grants. Subscribe again when session_present is false."""

    session_present: bool
    client_id: str
    keepalive_s: int
    session_expiry_s: int
    receive_maximum: int = 65535
    packet_bytes_max: int | None = None
    qos_maximum: int = 2
    retain_available: bool = True
    wildcard_available: bool = True
    shared_available: bool = True
    subscription_ids_available: bool = True
    topic_alias_maximum: int = 0
    response_information: str | None = None
    server_reference: str | None = None
    authentication_data: bytes | None = None


class Refused(msgspec.Struct, frozen=True):
    """CONNACK with an error: close the transport. code is MQTT 5's for both versions."""

    code: int
    name: str
    text: str = ""
    server_reference: str | None = None


class Received(msgspec.Struct, frozen=True):
    """All messages of one `receive`, in order. Each of QoS 1 and 2 is to be acknowledged by its receipt."""

    messages: list[Message]


class PassedOver(msgspec.Struct, frozen=True):
    """A message above packet_bytes_max came, which under MQTT 3.1.1 the server cannot know: it is acknowledged, for it
    would come for ever, and gone. bytes: of its packet."""

    topic: str
    bytes: int


class Settled(msgspec.Struct, frozen=True):
    """How publishes ended: the receipts of one origin, in the order they ended. reason_code 0 is success. topic: of the
    first of them, when they were refused."""

    origin: Origin | None
    receipts: Sequence[int]
    outcome: Outcome
    reason_code: int = 0
    topic: str = ""


class Subscribed(msgspec.Struct, frozen=True):
    """codes: one for each entry, in order; 0x80 and above is a refusal."""

    packet_id: int
    codes: tuple[int, ...]
    text: str = ""


class Unsubscribed(msgspec.Struct, frozen=True):
    """codes: one for each filter; empty under 3.1.1."""

    packet_id: int
    codes: tuple[int, ...]
    text: str = ""


class AuthChallenge(msgspec.Struct, frozen=True):
    """AUTH from the server: answer by `Session.authenticate`."""

    code: int
    method: str
    data: bytes | None


class Disconnected(msgspec.Struct, frozen=True):
    """DISCONNECT from the server (MQTT 5): close the transport."""

    code: int
    name: str
    text: str = ""
    server_reference: str | None = None


class ProtocolFailed(msgspec.Struct, frozen=True):
    """The server broke the standard or fell silent: write `output()` if possible, then close the transport."""

    code: int
    reason: str
    text: str = ""


Event: TypeAlias = (
    Connected
    | Refused
    | Received
    | PassedOver
    | Settled
    | Subscribed
    | Unsubscribed
    | AuthChallenge
    | Disconnected
    | ProtocolFailed
)
