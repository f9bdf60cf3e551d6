"""The sections of the gateway file but `[[function]]`: their fields, the values that each may have, the defaults."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge.topic_bounds import AWS_BYTES_MAX, AWS_LEVELS_MAX, LEVELS_MAX, TopicBounds
from edge.topics import TOPIC_BYTES_MAX

_PACKET_BYTES_MAX = 5 + 268_435_455  # MQTT 5.0, 2.1.4
STREAM_BYTES_LEAST = 2 * 1024 * 1024  # some segments, each with room for the largest record

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
ClientId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,23}$")]  # MQTT-SN 1.2, 5.3.1: 1 to 23 characters
ClientPattern = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{0,22}\*?$", min_length=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class GatewaySettings(_Section, frozen=True, kw_only=True):
    """name: the gateway's thing name; what a stream holds unacknowledged when it changes may be stored under both.
    data_dir: where the gateway keeps its state and its control socket."""

    name: Name
    data_dir: str = "/var/lib/edgeloop"


class ConnectionSettings(_Section, frozen=True, kw_only=True):
    """One MQTT connection, to the cloud or to the local broker. An empty client_id means the gateway's name.

    message_bytes_max: of a message that comes in. 128 KiB above it a broker of MQTT 5 drops it without sending it.
    topic_levels_max, topic_bytes_max: of what is published; 0 is what AWS IoT Core takes (8 levels, 256 bytes) where
    the host is its endpoint, else 128 levels and 65,535 bytes.
    backoff_s_max: how long after the return of its broker a try may come. Each wait is drawn anew between the least
    and the ceiling, so that gateways do not come back as one; a fleet of many thousands behind one broker sets more.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Port = 8883
    client_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{0,128}$")] = ""
    protocol: Literal["5", "3.1.1"] = "5"
    implementation: Literal["codec", "aws"] = "codec"
    tls: bool = True
    ca: str = ""
    certificate: str = ""
    key: str = ""
    alpn: str = ""
    username: str = ""
    password_file: str = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=65535)] = 30
    session_expiry_s: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = 3600
    connect_timeout_s: Seconds = 10.0
    backoff_s_min: Seconds = 1.0
    backoff_s_max: Seconds = 5.0
    window: Annotated[int, Meta(ge=1, le=65535)] = 1000
    queue_messages_max: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000
    queue_bytes_max: Annotated[int, Meta(ge=0, le=2**34)] = 4 * 1024 * 1024
    message_bytes_max: Annotated[int, Meta(ge=128, le=268_435_455)] = 128 * 1024
    topic_levels_max: Annotated[int, Meta(ge=0, le=TOPIC_BYTES_MAX)] = 0
    topic_bytes_max: Annotated[int, Meta(ge=0, le=TOPIC_BYTES_MAX)] = 0

    @property
    def packet_bytes_max(self) -> int:
        """Asked of the broker: a message of the largest size passes with its topic and whatever other properties. One
        that is larger mostly passes too: it is refused here, counted, where a broker would drop it without a word."""
        return min(self.message_bytes_max + 2 * (TOPIC_BYTES_MAX + 1), _PACKET_BYTES_MAX)

    @property
    def aws_region(self) -> str:
        """Where the host is an endpoint of AWS IoT Core; else empty."""
        found = re.search(r"\.iot\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$", self.host.lower())
        return found[1] if found else ""

    @property
    def topic_bounds(self) -> TopicBounds:
        is_aws = bool(self.aws_region)
        levels, size = (AWS_LEVELS_MAX, AWS_BYTES_MAX) if is_aws else (LEVELS_MAX, TOPIC_BYTES_MAX)
        return TopicBounds(self.topic_levels_max or levels, self.topic_bytes_max or size, is_aws)


class BoardSettings(_Section, frozen=True, kw_only=True):
    """One serial port and the board on it. clients: further client ids it may bring, `*` at the end for any tail."""

    name: ClientId
    port: Annotated[str, Meta(pattern=r"^(/|usb:[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:.+)?$)")]
    baud: Annotated[int, Meta(ge=300, le=3_000_000)] = 115_200
    clients: tuple[ClientPattern, ...] = ()
    predefined: dict[str, str] = {}
    window: Annotated[int, Meta(ge=1, le=255)] = 16
    content_bytes_max: Annotated[int, Meta(ge=64, le=65_535)] = 2048
    output_bytes_max: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 64 * 1024


class UdpSettings(_Section, frozen=True, kw_only=True):
    """Where stock MQTT-SN clients may reach the gateway over UDP."""

    host: Annotated[str, Meta(min_length=1)]
    port: Port = 1883
    clients: tuple[ClientPattern, ...] = ("*",)
    predefined: dict[str, str] = {}
    addresses_max: Annotated[int, Meta(ge=1, le=65_535)] = 256


class MqttSnSettings(_Section, frozen=True, kw_only=True):
    """Times and bounds of the MQTT-SN gateway (MQTT-SN 1.2, 7.2)."""

    gateway_id: Annotated[int, Meta(ge=1, le=255)] = 1
    advertise_s: Annotated[int, Meta(ge=10, le=65_535)] = 900
    retry_s: Seconds = 10.0
    retries: Annotated[int, Meta(ge=1, le=20)] = 4
    queue_messages_max: Annotated[int, Meta(ge=1, le=100_000)] = 256
    sleeping_messages_max: Annotated[int, Meta(ge=0, le=100_000)] = 64
    retained_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 1024
    retained_bytes_max: Annotated[int, Meta(ge=0, le=2**30)] = 1024 * 1024
    topics_max: Annotated[int, Meta(ge=1, le=65_000)] = 1024
    udp: UdpSettings | None = None


class RouteSettings(_Section, frozen=True, kw_only=True, rename={"source": "from"}):
    """Who may send what to whom. Nothing that no route names goes anywhere."""

    source: str
    topic: str
    to: tuple[str, ...]


class StreamSettings(_Section, frozen=True, kw_only=True, rename={"sources": "from"}):
    """A durable stream: what goes in is on disk before its source is told so, and goes on from there.

    from, topics: routes to this stream (others may name it `stream:NAME`). age_max_s, ttl_s, rates: 0 is none.
    commit: `every message`, `never` (the operating system decides) or a time such as `100 ms`. export: the connection
    it goes on by, or nothing. batch_topic: empty means `batch/GATEWAY/STREAM`.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    sources: tuple[str, ...] = ()
    topics: tuple[str, ...] = ("#",)
    bytes_max: Annotated[int, Meta(ge=STREAM_BYTES_LEAST, le=2**44)] = 256 * 1024 * 1024
    age_max_s: Annotated[float, Meta(ge=0)] = 0.0
    when_full: Literal["reject", "drop_oldest", "thin"] = "reject"
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    commit: Annotated[str, Meta(pattern=r"^(every message|never|[0-9]{1,6} (ms|s))$")] = "every message"
    commit_records_max: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    export: Literal["cloud", "broker", ""] = "cloud"
    format: Literal["message", "ndjson", "cbor"] = "message"
    gzip: bool = False
    batch_topic: str = ""
    batch_records_max: Annotated[int, Meta(ge=1, le=100_000)] = 500
    batch_bytes_max: Annotated[int, Meta(ge=1024, le=128 * 1024)] = 100 * 1024
    batch_wait_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    rate_bytes_per_s: Annotated[float, Meta(ge=0)] = 0.0
    rate_messages_per_s: Annotated[float, Meta(ge=0)] = 0.0
    ttl_s: Annotated[float, Meta(ge=0)] = 0.0
    live_first: bool = False

    @property
    def commit_interval_s(self) -> float:
        """How long records may wait for others to be committed with."""
        if self.commit == "every message":
            return 0.0
        if self.commit == "never":
            return 1.0
        count, unit = self.commit.split()
        return int(count) / (1000 if unit == "ms" else 1)


class RuleSettings(_Section, frozen=True, kw_only=True, rename={"source": "from"}):
    """One rule. topic: of its rows, `${column}` stands for a row's field (default rule/NAME); to: who gets them.

    time: path of the event time (Unix ms) in a payload, empty for the time of arrival; tables: name to CSV file.
    idle_s: windows in event time are closed when no message came for so long beside lateness_s; 0: they stay open until
    the next event, so that a board that was away loses nothing.
    keys_max: groups, and topics that filters remember; events_max: what sliding windows and joins hold.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    sql: Annotated[str, Meta(min_length=1, max_length=16_384)]
    source: Annotated[tuple[str, ...], Meta(min_length=1)] = ("boards",)
    topic: str = ""
    to: tuple[str, ...] = ()
    payload: Literal["json", "csv", "cbor", "raw"] = "json"
    columns: tuple[str, ...] = ()
    time: str = ""
    lateness_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    idle_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    keys_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    events_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    tables: dict[str, str] = {}

    @property
    def row_filter(self) -> str:
        """Takes the topics that its rows may have."""
        out = re.sub(r"\$\{[^}]*\}", "+", self.topic or f"rule/{self.name}")
        return "/".join("+" if "+" in level else level for level in out.split("/"))


def dead_letter_stream(name: str) -> StreamSettings:
    """One that the file does not declare: it is kept here, and its oldest go when it is full."""
    return StreamSettings(name=name, bytes_max=16 * 1024 * 1024, when_full="drop_oldest", export="")


class RulesSettings(_Section, frozen=True, kw_only=True):
    """What all rules share: the log where their rows and open windows are before anybody gets them.

    commit: as of a stream; sooner when some messages wait for it. when_full: `drop_oldest` (rows that nobody took) or
    `reject` (sources keep what they have, for streams too).
    """

    commit: Annotated[str, Meta(pattern=r"^(every message|never|[0-9]{1,6} (ms|s))$")] = "100 ms"
    bytes_max: Annotated[int, Meta(ge=STREAM_BYTES_LEAST, le=2**44)] = 64 * 1024 * 1024
    when_full: Literal["reject", "drop_oldest"] = "drop_oldest"
