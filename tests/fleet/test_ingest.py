"""`fleet ingest` as a process, between a real mosquitto and the real databases."""

import gzip
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_tools.fleet.store import Query, opener
from edge_tools.mosquitto import HOST, Mosquitto
from edge_tools.pki import Credential
from edge_tools.postgresql import Postgresql
from tests.fleet.ingesters import Ingester, Publisher, rows, wait_until
from tests.fleet.messages import cbor, ndjson
from tests.readme import commands

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    options = ["max_inflight_messages 0"]
    with Mosquitto(tmp_path / "broker", persistent=True, options=options) as started:
        yield started


def url(broker: Mosquitto) -> str:
    return f"mqtt://{HOST}:{broker.port}"


def stored(database: str) -> list[tuple[str | None, int | None, int | None]]:
    store = opener(database)(False)
    found = [(one.thing, one.boot, one.seq) for one in store.query(Query())]
    store.close()
    return found


def wait_stored(database: str, count: int) -> None:
    wait_until(lambda: len(stored(database)) >= count, f"{count} records")


def numbers(thing: str, boot: int, count: int) -> set[tuple[str | None, int | None, int | None]]:
    return {(thing, boot, seq) for seq in range(1, count + 1)}


def test_readings_come_through_once_whatever_is_repeated_and_reordered(
    tmp_path: Path, broker: Mosquitto, database: str
) -> None:
    sequence = [seq for seq in range(1, 301) for _ in range(2)]
    random.Random(7).shuffle(sequence)
    with Ingester(tmp_path, url(broker), database, "one") as ingester, Publisher(broker.port) as publisher:
        for seq in sequence:
            publisher.reading("b1", 1, seq)
        publisher.settle()
        wait_stored(database, 300)
        ingester_totals = ingester.stop()
    found = stored(database)
    assert len(found) == 300
    assert set(found) == numbers("b1", 1, 300)
    assert ingester_totals["stored"] == 300
    assert ingester_totals["conflicts"] == 0


def test_batches_and_bad_input_are_told_apart(
    tmp_path: Path, broker: Mosquitto, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(seq: Any) -> dict[str, Any]:
        return {"topic": "dt/b1/temp", "thing": "b1", "boot": 1, "seq": seq, "t": 1000, "payload": "1"}

    bomb = gzip.compress(bytes(50_000_000))
    with Ingester(tmp_path, url(broker), database, "one") as ingester, Publisher(broker.port) as publisher:
        publisher.publish("batch/gw/s", ndjson([row(1), row(-1), row(2)]), content_type="application/x-ndjson")
        publisher.publish("batch/gw/s", gzip.compress(ndjson([row(3)])), [("encoding", "gzip")], "application/x-ndjson")
        publisher.publish("batch/gw/s", cbor(row(4)) + cbor(row(5))[:-3], content_type="application/cbor-seq")
        publisher.publish("batch/gw/s", bomb, [("encoding", "gzip")], "application/x-ndjson")
        publisher.publish("dt/b1/temp", b"1", [("thing", "b1"), ("boot", "1"), ("seq", str(2**63))])
        publisher.publish("dt/b1/temp", b"\xff\0", [("thing", "b\ufeff1")])  # which paho itself refuses to read
        publisher.publish("dt/other", b"\xff\0")
        publisher.publish("dt/other", b"none", qos=0)
        publisher.settle()
        wait_stored(database, 6)
        totals = ingester.stop()
    expected = {"bad_seq": 2, "truncated_cbor": 1, "too_large_unpacked": 1, "bad_properties": 1}
    assert totals["rejected"] == expected
    assert totals["without_identity"] == 2
    assert sorted(found[2] or 0 for found in stored(database)) == [0, 0, 1, 2, 3, 4]
    counters = rows(capsys, "counters", "--database", database)[0]
    assert counters == {"without_identity": 2, **{f"rejected:{reason}": count for reason, count in expected.items()}}
    kept = rows(capsys, "rejected", "--database", database)
    assert {one["reason"] for one in kept} == set(expected)


def test_each_record_is_shown_once_after_kills_at_random(tmp_path: Path, broker: Mosquitto, database: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ingester = Ingester(tmp_path, url(broker), database, "one", "--commit-records", "7", "--commit-ms", "5")
    ingester.start()
    with Publisher(broker.port) as publisher:
        for boot in range(1, 7):
            for seq in range(1, 201):
                publisher.reading("b1", boot, seq)
            if boot < 6:
                wait_stored(database, (boot - 1) * 200 + chance.randrange(1, 150))
                ingester.kill()
                ingester.start(wait=False)
        publisher.settle()
        wait_stored(database, 1200)
    ingester.kill()
    found = stored(database)
    assert len(found) == 1200
    assert set(found) == set.union(*(numbers("b1", boot, 200) for boot in range(1, 7)))


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "after_acknowledge"])
@pytest.mark.parametrize("at", [1, 4])
def test_each_record_is_shown_once_after_a_kill_at_each_step(
    tmp_path: Path, broker: Mosquitto, database: str, point: str, at: int
) -> None:
    ingester = Ingester(tmp_path, url(broker), database, "one", "--commit-records", "10")
    ingester.kill_at(point, at)
    ingester.wait_subscribed()
    with Publisher(broker.port) as publisher:
        for seq in range(1, 101):
            publisher.reading("b1", 1, seq)
        assert ingester.wait() == -signal.SIGKILL
        publisher.settle()
    ingester.start()
    wait_stored(database, 100)
    ingester.stop()
    found = stored(database)
    assert len(found) == 100
    assert set(found) == numbers("b1", 1, 100)


def test_two_that_share_the_load_stay_right_when_one_is_killed(
    tmp_path: Path, broker: Mosquitto, postgresql: Postgresql, capsys: pytest.CaptureFixture[str]
) -> None:
    database = postgresql.create("shared")
    pair = [Ingester(tmp_path, url(broker), database, name, "--shared", "g", "--commit-ms", "5") for name in "ab"]
    for one in pair:
        one.start()
    with Publisher(broker.port) as publisher:
        for seq in range(1, 1001):
            publisher.reading(f"b{seq % 2}", 1, seq)
            if seq == 400:
                wait_stored(database, 100)
                pair[0].kill()
        publisher.settle()
        pair[0].start()
        wait_stored(database, 1000)
    totals = [one.stop() for one in pair]
    found = stored(database)
    assert len(found) == 1000
    assert {seq for _, _, seq in found} == set(range(1, 1001))
    assert all(one["stored"] for one in totals)
    losses = rows(capsys, "losses", "--database", database)
    assert [(one["thing"], one["count"]) for one in losses] == [("b0", 500), ("b1", 500)]


def test_what_waits_for_a_member_that_stays_away_is_stored_by_leaving_in_its_name(
    tmp_path: Path, broker: Mosquitto
) -> None:
    database = f"sqlite:///{tmp_path / 'telemetry.db'}"
    pair = [Ingester(tmp_path, url(broker), database, name, "--shared", "g") for name in "ab"]
    for one in pair:
        one.start()
    pair[0].kill()
    with Publisher(broker.port) as publisher:
        for seq in range(1, 201):
            publisher.reading("b1", 1, seq)
        publisher.settle()
        wait_stored(database, 100)
        gone = Ingester(tmp_path, url(broker), database, "a", "--shared", "g", "--leave")
        gone.start(wait=False)
        assert gone.wait() == 0
        assert set(stored(database)) == numbers("b1", 1, 200)
        for seq in range(201, 401):
            publisher.reading("b1", 1, seq)
        publisher.settle()
        wait_stored(database, 400)  # nothing more waits for the one that left
    pair[1].stop()
    [told] = [one for one in pair[1].events() if one["event"] == "share_kept"]
    assert "--leave" in told["remedy"]


def test_an_ingest_that_was_away_misses_nothing_with_the_broker_of_the_readme(tmp_path: Path) -> None:
    [written] = [one.text for one in commands(README.read_text()) if one.text.endswith("/broker.conf")]
    (tmp_path / "broker").mkdir()
    command = written.replace("/tmp/edgeloop", str(tmp_path / "broker")).replace("18830", "{port}")
    subprocess.run(["bash", "-c", command], check=True)
    conf = (tmp_path / "broker" / "broker.conf").read_text()
    database = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with Mosquitto(tmp_path / "broker", whole=conf) as broker:
        ingester = Ingester(tmp_path, url(broker), database, "one")
        ingester.start()
        ingester.stop()
        with Publisher(broker.port) as publisher:
            for seq in range(1, 2501):
                publisher.reading("b1", 1, seq)
            publisher.settle()
        broker.stop()
        broker.start()
        ingester.start()
        wait_stored(database, 2500)
        ingester.stop()
    assert set(stored(database)) == numbers("b1", 1, 2500)


def test_nothing_is_acknowledged_while_the_database_is_away(
    tmp_path: Path, broker: Mosquitto, own_postgresql: Postgresql
) -> None:
    database = own_postgresql.create("telemetry")
    with Ingester(tmp_path, url(broker), database, "one") as ingester, Publisher(broker.port) as publisher:
        publisher.reading("b1", 1, 1)
        wait_stored(database, 1)
        own_postgresql.kill()
        for seq in range(2, 52):
            publisher.reading("b1", 1, seq)
        publisher.settle()
        wait_until(lambda: "ingest_failed" in ingester.log.read_text())
        own_postgresql.start()
        wait_stored(database, 51)
        ingester.stop()
    assert set(stored(database)) == numbers("b1", 1, 51)
    failures = [one for one in ingester.events() if one["event"] == "ingest_failed"]
    assert [one["cause"] for one in failures] == ["database_away"]
    assert failures[0]["remedy"]


def test_it_comes_back_when_the_broker_does_and_says_so_once(tmp_path: Path, broker: Mosquitto, database: str) -> None:
    with Ingester(tmp_path, url(broker), database, "one") as ingester:
        with Publisher(broker.port) as publisher:
            publisher.reading("b1", 1, 1)
            wait_stored(database, 1)
        broker.stop()
        wait_until(lambda: "ingest_failed" in ingester.log.read_text())
        broker.start()
        ingester.wait_subscribed()
        with Publisher(broker.port) as publisher:
            publisher.reading("b1", 1, 2)
            wait_stored(database, 2)
        ingester.stop()
    causes = [one.get("cause") for one in ingester.events() if one["event"] == "ingest_failed"]
    assert len(causes) == len(set(causes))
    assert {"broker_closed", "unreachable"} >= set(causes)


def test_a_broker_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    ingester = Ingester(tmp_path, f"mqtt://{HOST}:{port}", f"sqlite:///{tmp_path / 't.db'}", "one")
    ingester.start(wait=False)
    wait_until(lambda: "ingest_failed" in ingester.log.read_text())
    ingester.stop()
    failed = [one for one in ingester.events() if one["event"] == "ingest_failed"]
    assert [one["cause"] for one in failed] == ["unreachable"]


def credential_options(credential: Credential) -> list[str]:
    files = {"--ca": credential.ca, "--certificate": credential.certificate, "--key": credential.key}
    return [str(part) for pair in files.items() for part in pair]


def test_it_uses_mutual_tls(tmp_path: Path, cloud_broker: Mosquitto, observer_credential: Credential) -> None:
    address = f"mqtts://localhost:{cloud_broker.tls_port}"
    options = credential_options(observer_credential)
    with Ingester(tmp_path, address, f"sqlite:///{tmp_path / 't.db'}", "one", *options) as ingester:
        assert ingester.stop()["rejected"] == {}


def test_wrong_files_end_it_at_the_start(tmp_path: Path, observer_credential: Credential) -> None:
    credential = Credential(observer_credential.certificate, observer_credential.ca, observer_credential.ca)
    options = credential_options(credential)
    ingester = Ingester(tmp_path, "mqtts://localhost", f"sqlite:///{tmp_path / 't.db'}", "one", *options)
    ingester.start(wait=False)
    assert ingester.wait() == 78
    assert "Check that they are PEM, and the key the certificate's." in ingester.log.read_text()


def test_a_damaged_sqlite_file_is_put_aside_and_the_rest_goes_on(tmp_path: Path, broker: Mosquitto) -> None:
    file = tmp_path / "t.db"
    database = f"sqlite:///{file}"
    with Ingester(tmp_path, url(broker), database, "one") as ingester, Publisher(broker.port) as publisher:
        for seq in range(1, 200):
            publisher.reading("b1", 1, seq)
        wait_stored(database, 199)
        ingester.stop()
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"\xa5" * (file.stat().st_size - 100))
    with Ingester(tmp_path, url(broker), database, "one") as ingester, Publisher(broker.port) as publisher:
        publisher.reading("b1", 2, 1)
        wait_stored(database, 1)
        ingester.stop()
        assert "database_quarantined" in ingester.log.read_text()
    assert stored(database) == [("b1", 2, 1)]
    assert len(list(tmp_path.glob("t.db.damaged-*"))) == 1
