"""The demo's client at the cloud. It is paho-mqtt, so that it shares no code with the gateway whose work it counts."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_tools.demo.tally import Command, Tally
from edge_tools.pki import Credential

ANSWERS, MEANS, RESULTS = "answers/demo", "agg", "fahrenheit"
TOPICS = ("dt", ANSWERS, MEANS, RESULTS)
"""What the judge hears: all below these."""
_CONNECT_TIMEOUT_S = 10.0
_SESSION_S = 3600


class Judge:
    """Counts what arrives into `tally`, which is touched only under `changed`; every change notifies it."""

    def __init__(self, name: str, things: Sequence[str], credential: Credential) -> None:
        self.tally = Tally(things)
        self.changed = threading.Condition()
        self._subscribed = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        self._client.tls_set(str(credential.ca), str(credential.certificate), str(credential.key))
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def start(self, host: str, port: int) -> None:
        """Connect and subscribe; readings are counted from here on. Raises TimeoutError, OSError."""
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = _SESSION_S  # what arrives while the broker is away is kept for us
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(host, port, clean_start=False, properties=session)
        self._client.loop_start()
        if not self.wait(lambda: self._subscribed, _CONNECT_TIMEOUT_S):
            raise TimeoutError("the demo's own client could not subscribe at the broker; see mosquitto.log")

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def command(self, thing: str, name: str, payload: bytes = b"") -> Command:
        """Publish `cmd/THING/NAME` with a response topic and correlation data; does not wait for the answer."""
        correlation = secrets.token_bytes(8)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = ANSWERS
        properties.CorrelationData = correlation
        with self.changed:
            command = self.tally.add_command(correlation, thing, name, time.monotonic())
        self._client.publish(f"cmd/{thing}/{name}", payload, qos=1, properties=properties)
        return command

    def wait(self, met: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until met() (called under `changed`) or the time is up; returns whether it was met."""
        with self.changed:
            return self.changed.wait_for(met, timeout_s)

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if not reason.is_failure:
            client.subscribe([(f"{topic}/#", SubscribeOptions(qos=1)) for topic in TOPICS])

    def _on_subscribe(
        self, _client: object, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        with self.changed:
            self._subscribed = not any(reason.is_failure for reason in reasons)
            self.changed.notify_all()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        now_s = time.monotonic()
        payload = bytes(message.payload)
        with self.changed:
            first, _, rest = message.topic.partition("/")
            if first == "dt":
                self.tally.add_reading(payload, getattr(message.properties, "UserProperty", []))
            elif first == MEANS:
                self.tally.add_mean(payload)
            elif first == RESULTS:
                self.tally.add_result(rest, payload)
            else:
                self.tally.add_answer(getattr(message.properties, "CorrelationData", b""), payload, now_s)
            self.changed.notify_all()
