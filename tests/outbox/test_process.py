"""Streams in the real gateway process beside real mosquittos: what is acknowledged arrives, whatever ends meanwhile."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.properties import Properties

from edge_tools.mosquitto import Mosquitto
from tests.processes import HEAD, Client, edge, running, until, wait_for_event

CONFIG = (
    HEAD
    + """
[[stream]]
name = "readings"
from = ["broker"]
topics = ["dt/#"]
"""
)

Name = tuple[str, str, str]


class Cloud(Client):
    """Who hears all that arrives, by name."""

    def __init__(self, port: int) -> None:
        self.arrived: list[tuple[str, bytes, dict[str, str]]] = []
        super().__init__(port, "#")

    def _take(self, got: paho.MQTTMessage) -> None:
        assert isinstance(got.properties, Properties)
        self.arrived.append((got.topic, bytes(got.payload), dict(getattr(got.properties, "UserProperty", []))))

    def named(self) -> dict[Name, bytes]:
        """Each once; fails where one name stands for two payloads."""
        found: dict[Name, bytes] = {}
        for _, payload, user in list(self.arrived):
            name = user["thing"], user["boot"], user["seq"]
            assert found.setdefault(name, payload) == payload
        return found


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[Mosquitto, Mosquitto]]:
    with (
        Mosquitto(tmp_path / "c", persistent=True) as cloud,
        Mosquitto(tmp_path / "b", persistent=True) as broker,
    ):
        yield cloud, broker


@pytest.fixture
def file(tmp_path: Path, brokers: tuple[Mosquitto, Mosquitto]) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(cloud=brokers[0].port, broker=brokers[1].port))
    return path


def test_what_goes_into_a_stream_arrives_in_order_with_a_name_of_its_own(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    payloads = [b"%d" % number for number in range(500)]
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        brokers[1].wait_log("Sending SUBACK to g")
        cloud, source = Cloud(brokers[0].port), Client(brokers[1].port)
        try:
            source.publish("dt/x", *payloads)
            assert until(lambda: len(cloud.named()) == 500)
            assert [payload for _, payload, _ in cloud.arrived] == payloads
            assert {thing for thing, _, _ in cloud.named()} == {"g/readings"}
            assert [seq for _, _, seq in cloud.named()] == [str(number) for number in range(1, 501)]
        finally:
            cloud.close()
            source.close()
        counters = json.loads(edge("status", "--config", str(file), "--json").stdout)["counters"]
        assert counters['stream_records_in{stream="readings"}'] == 500
        assert until(
            lambda: (
                json.loads(edge("status", "--config", str(file), "--json").stdout)["counters"][
                    'stream_records_out{stream="readings"}'
                ]
                == 500
            )
        )


def test_a_gateway_killed_while_the_cloud_is_away_loses_nothing_it_took(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    cloud_broker, broker = brokers
    first, second = [b"a%d" % number for number in range(300)], [b"b%d" % number for number in range(300)]
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        broker.wait_log("Sending SUBACK to g")
        source = Client(broker.port)
        cloud_broker.kill()
        try:
            source.publish("dt/x", *first)
            assert until(lambda: "300" in edge("status", "--config", str(file)).stdout)
            process.kill()
            process.wait(15)
            source.publish("dt/x", *second)
        finally:
            source.close()
    cloud_broker.start()
    cloud = Cloud(cloud_broker.port)
    try:
        with running(file):
            assert until(lambda: set(cloud.named().values()) >= {*first, *second})
    finally:
        cloud.close()


def stream(*argv: str, file: Path) -> Any:
    done = edge("stream", *argv, "--config", str(file), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def exported(file: Path, *argv: str) -> list[dict[str, Any]]:
    done = edge("stream", "export", "readings", *argv, "--config", str(file))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def fill(file: Path, brokers: tuple[Mosquitto, Mosquitto], payloads: list[bytes]) -> None:
    """Have the gateway take these while the cloud is away, and end."""
    brokers[0].stop()
    with running(file) as process:
        wait_for_event(process, "connected")
        brokers[1].wait_log("Sending SUBACK to g")
        source = Client(brokers[1].port)
        try:
            source.publish("dt/x", *payloads)
            assert until(lambda: stream("show", "readings", file=file)["next"] == len(payloads) + 1)
        finally:
            source.close()


def test_a_stream_is_looked_at_exported_and_purged_while_the_gateway_runs_and_looked_at_when_it_does_not(
    file: Path, brokers: tuple[Mosquitto, Mosquitto], tmp_path: Path
) -> None:
    fill(file, brokers, [b"%d" % number for number in range(200)] + [b"\xff"])
    shown = stream("show", "readings", file=file)
    assert (shown["backlog_records"], shown["next"]) == (201, 202)
    assert [row["payload"] for row in exported(file, "--from", "3", "--to", "5")] == ["2", "3", "4"]
    assert edge("stream", "purge", "readings", "--config", str(file)).returncode == 1
    with running(file) as process:
        wait_for_event(process, "gateway_started")
        rows = exported(file)
        assert [row.get("payload", row.get("payload_base64")) for row in rows] == [*map(str, range(200)), "/w=="]
        assert [row["seq"] for row in rows] == list(range(1, 202))
        assert all(row["t"] > 1_600_000_000_000 for row in rows)
        target = tmp_path / "out.ndjson"
        assert exported(file, "--to", "2", "--output", str(target)) == []
        assert len(target.read_text().splitlines()) == 2
        listed = stream("list", file=file)
        assert [(row["name"], row["backlog_records"]) for row in listed] == [("readings", 201)]
        assert stream("purge", "readings", "--dry-run", file=file) == {"stream": "readings", "would_purge": 201}
        assert stream("purge", "readings", file=file) == {"stream": "readings", "purged": 201}
        assert until(lambda: stream("show", "readings", file=file)["backlog_records"] == 0)
        assert edge("stream", "show", "none", "--config", str(file)).returncode == 2
    found = stream("losses", "readings", file=file)
    assert [(row["thing"], [(one["count"], one["reason"]) for one in row["shed"]]) for row in found] == [
        ("g/readings", [(201, "purged")])
    ]
    told = edge("stream", "losses", "readings", "--config", str(file)).stdout.splitlines()
    assert told[0].startswith("thing g/readings")
    assert told[1].startswith("  boot ")
    assert told[1].endswith(", first 1, last 201, count 201, reason purged")
    assert "shed purged 201" in edge("stream", "list", "--config", str(file)).stdout


def test_an_export_to_a_file_that_cannot_be_is_told_and_a_stray_file_among_the_streams_is_nobodys(
    file: Path, brokers: tuple[Mosquitto, Mosquitto], tmp_path: Path
) -> None:
    fill(file, brokers, [b"x"])
    (file.parent / "state/streams/notes.txt").write_text("mine")
    refused = edge("stream", "export", "readings", "--config", str(file), "--output", str(tmp_path / "none/x"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("none/x: No such file or directory\n")
    assert [row["name"] for row in stream("list", file=file)] == ["readings"]
    with running(file) as process:
        wait_for_event(process, "gateway_started")


def test_a_stream_that_disappears_with_a_backlog_is_refused_until_it_is_discarded_by_name(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    fill(file, brokers, [b"x"] * 50)
    file.write_text(file.read_text().replace('name = "readings"', 'name = "others"'))
    refused = edge("run", "--config", str(file))
    assert refused.returncode == 78
    assert "50 records" in refused.stderr
    assert "--discard readings" in refused.stderr
    wrong = edge("run", "--config", str(file), "--discard", "reading")
    assert wrong.returncode == 78
    with running(file, "--discard", "readings") as process:
        event = wait_for_event(process, "stream_discarded")
        assert (event["stream"], event["records"]) == ("readings", 50)
        wait_for_event(process, "gateway_started")
    assert not (file.parent / "state/streams/readings").exists()


def test_a_stream_that_shrinks_below_what_it_holds_is_refused_until_it_is_discarded_by_name(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    text = file.read_text()
    fill(file, brokers, [bytes([number % 256]) * 10 + os.urandom(20_000) for number in range(300)])
    file.write_text(text + "bytes_max = 4194304\n")
    refused = edge("run", "--config", str(file))
    assert refused.returncode == 78
    assert "stream[1].bytes_max" in refused.stderr
    with running(file, "--discard", "readings") as process:
        event = wait_for_event(process, "stream_discarded")
        wait_for_event(process, "gateway_started")
        shown = stream("show", "readings", file=file)
        assert shown["shed"] == {"discarded": event["records"]}
        assert shown["bytes"] <= 4 << 20


def test_a_log_of_a_newer_version_is_refused_with_the_way_back(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    fill(file, brokers, [b"x"])
    (segment,) = (file.parent / "state/streams/readings").glob("*.segment")
    data = bytearray(segment.read_bytes())
    head = bytearray(data[:64])
    head[8:10] = (2).to_bytes(2, "little")
    head[60:64] = zlib.crc32(head[:60]).to_bytes(4, "little")
    data[:64] = head
    segment.write_bytes(data)
    refused = edge("run", "--config", str(file))
    assert refused.returncode == 78
    assert "version 2" in refused.stderr


@pytest.mark.parametrize("form", ["ndjson", "cbor"])
def test_a_batch_arrives_as_one_message_with_its_type(
    file: Path, brokers: tuple[Mosquitto, Mosquitto], form: str
) -> None:
    file.write_text(file.read_text() + f'format = "{form}"\ngzip = true\nbatch_wait_s = 0.2\n')
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        brokers[1].wait_log("Sending SUBACK to g")
        cloud, source = Cloud(brokers[0].port), Client(brokers[1].port)
        try:
            source.publish("dt/x", *[b"%d" % number for number in range(20)])
            assert until(lambda: len(cloud.arrived) > 0)
            topic, payload, user = cloud.arrived[0]
            assert topic == "batch/g/readings"
            assert user == {"encoding": "gzip"}
            assert b"g/readings" in gzip.decompress(payload)
        finally:
            cloud.close()
            source.close()


def test_the_cloud_away_and_back_brings_all_in_order_at_the_rate_allowed(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    payloads = [b"%d" % number for number in range(120)]
    fill(file, brokers, payloads)
    file.write_text(file.read_text() + "rate_messages_per_s = 60\n")
    brokers[0].start()
    cloud = Cloud(brokers[0].port)
    try:
        with running(file) as process:
            wait_for_event(process, "connected", times=2)
            assert until(lambda: len(cloud.arrived) >= 60)
            assert until(lambda: len(cloud.arrived) == 120)
            assert [payload for _, payload, _ in cloud.arrived] == payloads
    finally:
        cloud.close()
