"""Batches to a real broker that limits packets: they arrive whole, in smaller ones; only a record too large is lost."""

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.cloud.codec import CodecConnection
from edge.config import ConnectionSettings
from edge.messages import Message, Origin, Outcome, Reading
from edge.metrics import Metrics
from edge_tools.fleet.batches import decode_batch
from edge_tools.mosquitto import Mosquitto
from tests.cloud.worlds import WAIT_S, running, until
from tests.outbox.rig import Cloud, Rig

LIMIT = 20_000
MANY = 400


class Judge:
    """Takes the batches that arrive apart."""

    def __init__(self, port: int, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5) -> None:
        self.found: list[tuple[int, bytes]] = []
        self.sizes: list[int] = []
        ready = threading.Event()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, "judge", protocol=protocol)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert ready.wait(WAIT_S)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe("#", 1)

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        self.sizes.append(len(message.payload))
        properties: Any = message.properties
        if not hasattr(properties, "ContentType"):  # published by 3.1.1
            data = gzip.decompress(message.payload) if message.payload[:2] == b"\x1f\x8b" else message.payload
            self.found += [(row["seq"], row["payload"].encode()) for row in map(json.loads, data.splitlines())]
            return
        encoding = dict(getattr(properties, "UserProperty", ())).get("encoding", "")
        decoded = decode_batch(message.topic, bytes(message.payload), properties.ContentType, encoding, 1)
        assert not decoded.rejections
        self.found += [(one.seq, one.payload) for one in decoded.records if one.seq is not None]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", options=[f"max_packet_size {LIMIT}"]) as made:
        yield made


def payload(number: int) -> bytes:
    """145 bytes with many quotes: in a JSON row each takes a backslash."""
    return json.dumps({"c": number, **{f"k{n}": "" for n in range(15)}}).encode().ljust(145)


def messages(numbers: range) -> list[Message]:
    return [Message("dt/b1", payload(n), 1, False, n, None, Reading("b1", 1, n)) for n in numbers]


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(("form", "packed"), [("ndjson", False), ("cbor", False), ("ndjson", True), ("cbor", True)])
def test_every_record_passes_a_broker_that_says_how_large_a_packet_may_be(
    tmp_path: Path, broker: Mosquitto, form: str, packed: bool, online: bool
) -> None:
    async def main() -> None:
        judge = Judge(broker.port)
        settings = ConnectionSettings(host="127.0.0.1", port=broker.port, client_id="g", tls=False)
        connection = CodecConnection(settings, Metrics())
        rig = Rig(tmp_path, connection, format=form, gzip=packed, batch_wait_s=0.05)  # type: ignore[arg-type]
        if not online:  # batches are built before the broker said anything
            rig.start()
            rig.stream.send(messages(range(1, MANY + 1)), rig.source)
            await rig.taken()
            await until(lambda: rig.uploader.under_way > 0)
        async with running(connection):
            if online:
                await until(lambda: connection.state.connected)
                rig.start()
                rig.stream.send(messages(range(1, MANY + 1)), rig.source)
            await rig.taken()
            await until(lambda: rig.uploader.backlog() == 0)
            await until(lambda: len({number for number, _ in judge.found}) == MANY)
        assert dict(judge.found) == {n: payload(n) for n in range(1, MANY + 1)}
        assert max(judge.sizes) < LIMIT
        if online:
            assert [number for number, _ in judge.found] == list(range(1, MANY + 1))
            assert packed or min(judge.sizes[:-1]) > LIMIT // 2
        assert rig.stream.ledger.totals == {}
        rig.stop()
        judge.close()

    asyncio.run(main())


def test_a_record_too_large_for_the_broker_is_counted_by_that_reason_and_alone(
    tmp_path: Path, broker: Mosquitto
) -> None:
    async def main() -> None:
        judge = Judge(broker.port)
        settings = ConnectionSettings(host="127.0.0.1", port=broker.port, client_id="g", tls=False)
        connection = CodecConnection(settings, Metrics())
        rig = Rig(tmp_path, connection, format="ndjson", batch_wait_s=0.05)  # type: ignore[arg-type]
        rig.start()
        some = messages(range(1, 11))
        some[4] = Message("dt/b1", b"x" * (LIMIT + 1), 1, False, 5, None, Reading("b1", 1, 5))
        rig.stream.send(some, rig.source)
        await rig.taken()
        await until(lambda: rig.uploader.under_way > 0)
        async with running(connection):
            await until(lambda: rig.uploader.backlog() == 0)
            await until(lambda: len({number for number, _ in judge.found}) == 9)
        assert {number for number, _ in judge.found} == {1, 2, 3, 4, 6, 7, 8, 9, 10}
        assert rig.stream.ledger.totals == {"too_large": 1}
        assert [(one.first, one.last) for one in rig.stream.ledger.things["b1"]] == [(5, 5)]
        rig.stop()
        judge.close()

    asyncio.run(main())


def test_every_record_passes_a_broker_that_only_hangs_up_on_what_is_too_large(
    tmp_path: Path, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MQTT 3.1.1 has no word for a limit, and none for a refusal."""
    monkeypatch.setattr("edge.cloud.codec.HELD_S", 0.05)

    async def main() -> None:
        judge = Judge(broker.port, MQTTProtocolVersion.MQTTv311)
        settings = ConnectionSettings(
            host="127.0.0.1", port=broker.port, client_id="g", tls=False, protocol="3.1.1", backoff_s_min=0.02,
            backoff_s_max=0.05,
        )  # fmt: skip
        connection = CodecConnection(settings, Metrics())
        rig = Rig(tmp_path, connection, format="ndjson", batch_bytes_max=30_000, batch_wait_s=0.05)  # type: ignore[arg-type]
        rig.start()
        async with running(connection):
            rig.stream.send(messages(range(1, MANY + 1)), rig.source)
            await rig.taken()
            await until(lambda: rig.uploader.backlog() == 0)
            await until(lambda: len({number for number, _ in judge.found}) == MANY)
        assert rig.stream.ledger.totals == {}
        assert max(judge.sizes) < LIMIT
        rig.stop()
        judge.close()

    asyncio.run(main())


@pytest.mark.parametrize(("records", "size"), [(300, 4000), (7, 10)])
def test_what_is_refused_as_too_large_goes_again_in_smaller_batches_down_to_single_records(
    tmp_path: Path, records: int, size: int
) -> None:
    """By a target that takes but one record at a time, and says so each time anew."""

    class Choosy(Cloud):
        def send(self, messages: Any, origin: Any) -> None:
            for message in messages:
                if message.payload.count(b"\n") > 1:
                    origin.too_large([message.receipt], surely=True)
                else:
                    self.seen.append(message)
                    origin.settled([message.receipt], Outcome.TAKEN)

    async def main() -> None:
        cloud = Choosy()
        rig = Rig(tmp_path, cloud, format="ndjson", batch_wait_s=0.01)
        rig.start()
        numbers = range(1, records + 1)
        rig.stream.send(
            [Message("dt/b1", b"%d" % n + b" " * size, 1, False, n, None, Reading("b1", 1, n)) for n in numbers],
            rig.source,
        )
        await rig.taken()
        await until(lambda: rig.uploader.backlog() == 0)
        assert [json.loads(message.payload)["seq"] for message in cloud.seen] == list(numbers)
        assert rig.stream.ledger.totals == {}
        rig.stop()

    asyncio.run(main())


def test_a_message_larger_than_asked_for_ends_no_connection_of_mqtt_311(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        metrics = Metrics()
        settings = ConnectionSettings(host="127.0.0.1", port=port, client_id="g", tls=False, protocol="3.1.1")
        connection = CodecConnection(settings, metrics)
        taken: list[Message] = []

        def receive(batch: Sequence[Message], origin: Origin) -> None:
            taken.extend(batch)
            origin.settled([message.receipt for message in batch if message.qos], Outcome.TAKEN)

        connection.subscribe(["cmd/#"], receive)
        async with running(connection):
            await until(lambda: connection.state.connected)
            sender = paho.Client(CallbackAPIVersion.VERSION2, "sender")
            sender.connect("127.0.0.1", port)
            sender.loop_start()
            for qos in (0, 1, 2):
                sender.publish("cmd/large", bytes(settings.packet_bytes_max), qos)
            sender.publish("cmd/small", b"x", 1)
            await until(lambda: [message.topic for message in taken] == ["cmd/small"])
            sender.disconnect()
            sender.loop_stop()
            assert metrics.counter("connection_messages_too_large", connection="cloud").value == 3
            assert metrics.counter("connection_opens", connection="cloud").value == 1

    with Mosquitto(tmp_path / "plain") as plain:
        asyncio.run(main(plain.port))
