"""A producer over MQTT that keeps each record until it is acknowledged: the source before a broker that is compared."""

import threading
from collections import deque
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.faults.oracle import Id, Produced, payload

HOST = "127.0.0.1"
WINDOW = 1000
_WAIT_S = 120.0


class Publisher:
    """One thing, publishing QoS 1 on dt/NAME/temp with its identity in user properties. Its session outlives the
    broker's; what was not acknowledged it sends again."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._made: list[Id] = []
        self._open: dict[int, Id] = {}
        self._waiting: deque[tuple[Id, bytes]] = deque()
        self._in_order = True
        self._early: set[int] = set()  # acknowledged before publish() had told which they are
        self._acknowledged: set[Id] = set()
        self._connected = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(WINDOW)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 86_400
        self._client.connect(HOST, port, properties=session, clean_start=False)
        self._client.loop_start()
        assert self._connected.wait(_WAIT_S), f"{name} could not connect"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def produce(self, count: int, bytes_min: int) -> None:
        """Always from the same thread. While the connection is away they wait here, and go out behind what is sent
        again: the client itself would let new ones overtake."""
        for _ in range(count):
            one = Id(self.name, 1, len(self._made) + 1)
            with self._lock:
                self._made.append(one)
            self._waiting.append((one, payload(one, bytes_min)))
        if not self._in_order:
            with self._lock:
                self._in_order = self._connected.is_set() and not self._open
        while self._waiting and self._in_order and len(self._open) < WINDOW:
            self._send(*self._waiting.popleft())

    def _send(self, one: Id, data: bytes) -> None:
        named = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        named.UserProperty = [("thing", one.thing), ("boot", str(one.boot)), ("seq", str(one.sequence))]
        # Not under the lock: the client holds one of its own when it calls on_publish.
        sent = self._client.publish(f"dt/{self.name}/temp", data, 1, properties=named)
        with self._lock:
            if sent.mid in self._early:
                self._early.discard(sent.mid)
                self._acknowledged.add(one)
            else:
                self._open[sent.mid] = one

    def idle(self) -> bool:
        with self._lock:
            return not self._open and not self._waiting

    def book(self) -> Produced:
        with self._lock:
            return Produced(
                list(self._made), set(self._acknowledged), set(self._open.values()) | {one for one, _ in self._waiting}
            )

    def _on_connect(self, _: paho.Client, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        if not reason.is_failure:
            self._connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        self._connected.clear()
        self._in_order = False

    def _on_publish(self, _: paho.Client, __: Any, mid: int, ___: ReasonCode, ____: Any) -> None:
        with self._lock:
            one = self._open.pop(mid, None)
            if one is None:
                self._early.add(mid)
            else:
                self._acknowledged.add(one)
