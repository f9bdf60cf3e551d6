"""An independent client at the cloud's broker: it counts what arrives, asks boards, and shares no code with edge."""

import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_tools.pki import Credential

PATIENCE_S = 180.0
HOST = "127.0.0.1"


class Arrival(msgspec.Struct, frozen=True):
    topic: str
    payload: bytes
    correlation: bytes | None = None


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of condition. Fails naming what did not come about."""
    deadline_s = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.02)


def _send_at_once(_: paho.Client, __: Any, sock: Any) -> None:
    """Else a command waits up to 40 ms for the broker's acknowledgement of what was sent before it."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Cloud:
    """Subscribed to everything with QoS 1, over mutual TLS, in a session that outlives a restart of the broker."""

    def __init__(self, port: int, credential: Credential) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._subscribed = threading.Event()
        self._numbers = itertools.count(1)
        self._awaited = ""
        self._came = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "observer", protocol=paho.MQTTv5)
        self._client.tls_set(str(credential.ca), str(credential.certificate), str(credential.key), ssl.CERT_REQUIRED)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_socket_open = _send_at_once
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 3600
        self._client.connect(HOST, port, properties=session, clean_start=False)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S), "the observer could not subscribe"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if not reason.is_failure:
            client.subscribe([("dt/#", 1), ("cmd/+/reply", 1), ("answers/#", 1), ("sn/#", 1)])

    def _on_subscribe(self, _: Any, __: Any, ___: Any, reasons: list[ReasonCode], ____: Any) -> None:
        if not any(reason.is_failure for reason in reasons):
            self._subscribed.set()

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        arrival = Arrival(message.topic, bytes(message.payload), getattr(message.properties, "CorrelationData", None))
        with self._lock:
            self._arrivals.append(arrival)
            if arrival.topic == self._awaited:
                self._came.set()

    def forget(self) -> None:
        """What arrived so far."""
        with self._lock:
            self._arrivals.clear()

    def arrivals(self, topic: str) -> list[Arrival]:
        """In the order they came."""
        with self._lock:
            return [arrival for arrival in self._arrivals if arrival.topic == topic]

    def readings(self, board: str) -> list[dict[str, Any]]:
        """The payloads of `dt/BOARD/temp`, repeats included."""
        return [json.loads(arrival.payload) for arrival in self.arrivals(f"dt/{board}/temp")]

    def distinct(self, board: str) -> set[int]:
        """The readings of one boot that arrived, each once, by their time since the boot."""
        return {reading["up_ms"] for reading in self.readings(board)}

    def wait_readings(self, board: str, more: int = 1) -> list[dict[str, Any]]:
        """Until `more` readings arrived beyond those there are now."""
        before = len(self.readings(board))
        wait_until(lambda: len(self.readings(board)) >= before + more, f"{more} more readings of {board}")
        return self.readings(board)[before:]

    def publish(self, topic: str, payload: bytes = b"", qos: int = 1, properties: Properties | None = None) -> None:
        wait_until(self._client.is_connected, "the observer to be connected")
        self._client.publish(topic, payload, qos, properties=properties).wait_for_publish(PATIENCE_S)

    def ask(self, board: str, command: str, payload: bytes = b"") -> Arrival:
        """A command with a response topic and correlation data, and its answer."""
        answers = f"answers/{board}/{next(self._numbers)}"
        correlation = self.command(board, command, payload, response_topic=answers)
        arrived: list[Arrival] = wait_until(lambda: self.arrivals(answers), f"the answer of {board} to {command}")
        assert arrived[0].correlation == correlation
        return arrived[0]

    def command(self, board: str, command: str, payload: bytes = b"", *, response_topic: str, qos: int = 1) -> bytes:
        """A command to be answered on response_topic, with the correlation data returned."""
        correlation = f"{command} {response_topic}".encode()
        asking = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        asking.ResponseTopic = response_topic
        asking.CorrelationData = correlation
        self.publish(f"cmd/{board}/{command}", payload, qos, properties=asking)
        return correlation

    def ask_quickly(self, board: str, command: str, payload: bytes) -> Arrival:
        """As `ask`, with QoS 0 and woken by the answer itself, for measuring."""
        answers = f"answers/{board}/{next(self._numbers)}"
        with self._lock:
            self._awaited = answers
        self._came.clear()
        self.command(board, command, payload, response_topic=answers, qos=0)
        assert self._came.wait(PATIENCE_S), f"no answer of {board} to {command}"
        return self.arrivals(answers)[0]

    def stats(self, board: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ask(board, "stats").payload)
        return answer

    def settle(self, board: str) -> dict[str, Any]:
        """Stop the board from producing, and wait until it holds nothing unacknowledged. Returns its counters."""
        self.ask(board, "pause")

        def nothing_held() -> dict[str, Any] | None:
            counters = self.stats(board)
            return None if counters["readings_held"] else counters

        counters: dict[str, Any] = wait_until(nothing_held, f"{board} to hand over its readings")
        return counters
