"""The receiving side of the fault tests: each keeps a book of every record in the order it came."""

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.mqtt import packets
from edge_tools.fleet.cbor import decode_item
from edge_tools.mosquitto import Mosquitto
from tests.fakes.broker import FakeBroker
from tests.faults.held_port import HOST, HeldPort
from tests.faults.loop_thread import LoopThread
from tests.faults.oracle import Arrival, Id, arrival

_WAIT_S = 120.0
RULE_ROWS = "rule/"


def arrivals(topic: str, data: bytes, user: Mapping[str, str], content_type: str) -> Iterator[Arrival]:
    """The records of one message: one, or a batch's rows, perhaps gzipped."""
    if not topic.startswith("batch/"):
        named = Id(user["thing"], int(user["boot"]), int(user["seq"])) if "seq" in user else None
        yield arrival(data, named)
        return
    if user.get("encoding") == "gzip":
        data = gzip.decompress(data)
    for row in ROWS[content_type](data):
        yield arrival(row["payload"], Id(row["thing"], row["boot"], row["seq"]))


def _ndjson_rows(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        row = json.loads(line)
        yield {**row, "payload": row["payload"].encode()}


def _cbor_rows(data: bytes) -> Iterator[dict[str, Any]]:
    at = 0
    while at < len(data):
        row, at = decode_item(data, at)
        yield row


ROWS = {"application/x-ndjson": _ndjson_rows, "application/cbor-seq": _cbor_rows}


class FakeCloud:
    """A broker that acknowledges only what its book holds, in a thread of its own; kill it as often as you like."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self._server: asyncio.Server | None = None
        self._thread = LoopThread("cloud")
        self._port = HeldPort()
        self.port = self._port.number
        self.start()

    def stop(self, *, forget_sessions: bool = False) -> None:
        self._thread.run(self._stop())
        if forget_sessions:
            self.broker.sessions.clear()

    def start(self) -> None:
        if self._server is None:
            self._thread.run(self._listen())

    def close(self) -> None:
        self.stop()
        self._thread.close()
        self._port.close()

    def wish(self, change: str, value: Any) -> None:
        """Set one of the fake broker's wishes."""
        self._thread.call(setattr, self.broker, change, value)

    def rows(self) -> dict[str, list[bytes]]:
        """What rules made, by topic in the order it came, each name once."""
        found: dict[str, list[bytes]] = {}
        seen: dict[Id, bytes] = {}
        for packet in self.published():
            if not packet.topic.startswith(RULE_ROWS):
                continue
            user = dict(packet.properties.user)
            named = Id(user["thing"], int(user["boot"]), int(user["seq"]))
            if named not in seen:
                found.setdefault(packet.topic, []).append(packet.payload)
            assert seen.setdefault(named, packet.payload) == packet.payload, f"{named} is two rows"
        return found

    def published(self) -> list[packets.Publish]:
        return self._thread.call(lambda: [one for one in self.broker.packets if isinstance(one, packets.Publish)])

    def arrivals(self) -> list[Arrival]:
        return [
            one
            for packet in self.published()
            if not packet.topic.startswith(RULE_ROWS)
            for one in arrivals(
                packet.topic, packet.payload, dict(packet.properties.user), packet.properties.content_type or ""
            )
        ]

    def received(self) -> int:
        return len({one.made for one in self.arrivals() if not one.first})

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.broker.make_client, sock=self._port.socket())

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._port.refuse()
        for client in list(self.broker.clients):
            client.transport.abort()


class Observer:
    """An independent subscriber at a real mosquitto, with a session that outlives both; it acknowledges a message after
    it stands in the book."""

    def __init__(self, port: int, topics: tuple[str, ...] = ("dt/#", "batch/#")) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._distinct: set[Id] = set()
        self._subscribed = threading.Event()
        self._topics = topics
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "observer", protocol=paho.MQTTv5, manual_ack=True)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 86_400
        session.ReceiveMaximum = 1000
        self._client.connect(HOST, port, properties=session, clean_start=False)
        self._client.loop_start()
        assert self._subscribed.wait(_WAIT_S), "the observer could not subscribe"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def arrivals(self) -> list[Arrival]:
        with self._lock:
            return list(self._arrivals)

    def received(self) -> int:
        """How many records, each counted once."""
        return len(self._distinct)

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if not reason.is_failure:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, _: Any, __: Any, ___: Any, reasons: list[ReasonCode], ____: Any) -> None:
        if not any(reason.is_failure for reason in reasons):
            self._subscribed.set()

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        user = dict(getattr(message.properties, "UserProperty", ()))
        kind = getattr(message.properties, "ContentType", "")
        found = list(arrivals(message.topic, bytes(message.payload), user, kind))
        with self._lock:
            self._arrivals += found
            self._distinct.update(one.made for one in found if one.made is not None and not one.first)
        client.ack(message.mid, message.qos)


class RealBroker:
    """A mosquitto. It is stopped in good order: killed with -9 mosquitto 2.0 forgets what it had acknowledged, and no
    gateway can make up for that."""

    def __init__(self, folder: Path) -> None:
        self._broker = Mosquitto(folder, persistent=True, options=("max_inflight_messages 1000",))
        self._broker.start()
        self._up = True

    @property
    def port(self) -> int:
        return self._broker.port

    def stop(self) -> None:
        self._broker.stop()
        self._up = False

    def start(self) -> None:
        if not self._up:
            self._broker.start()
            self._up = True


class RealCloud(RealBroker):
    """With an observer at it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._observer = Observer(self.port)

    def arrivals(self) -> list[Arrival]:
        return self._observer.arrivals()

    def received(self) -> int:
        return self._observer.received()

    def close(self) -> None:
        self._observer.close()
        self._broker.stop()
