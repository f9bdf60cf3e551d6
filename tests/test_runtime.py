"""The gateway as a process: what a person who starts it sees."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.mosquitto import Mosquitto
from tests.processes import ENVIRONMENT, HEAD, Client, edge, running, status_of, until, wait_for_event

CONFIG = (
    HEAD
    + """
[[route]]
from = "broker"
topic = "dt/#"
to = ["cloud"]

[[route]]
from = "cloud"
topic = "cmd/#"
to = ["broker"]
"""
)


def wait_until_subscribed(process: subprocess.Popen[str], brokers: tuple[Mosquitto, Mosquitto]) -> None:
    wait_for_event(process, "connected", times=2)
    for broker in brokers:
        broker.wait_log("Sending SUBACK to g")


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[Mosquitto, Mosquitto]]:
    with Mosquitto(tmp_path / "c") as cloud, Mosquitto(tmp_path / "b") as broker:
        yield cloud, broker


@pytest.fixture
def file(tmp_path: Path, brokers: tuple[Mosquitto, Mosquitto]) -> Path:
    cloud, broker = brokers
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(cloud=cloud.port, broker=broker.port))
    return path


def test_a_device_on_the_local_broker_and_the_cloud_reach_each_other_by_the_routes_only(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    with running(file) as process:
        wait_until_subscribed(process, brokers)
        cloud, device = Client(brokers[0].port, "#"), Client(brokers[1].port, "#")
        try:
            device.publish("dt/x", b"up")
            device.publish("private/x", b"no")
            cloud.publish("cmd/x", b"down")
            assert until(lambda: ("dt/x", b"up") in cloud.heard and ("cmd/x", b"down") in device.heard)
            device.publish("dt/x", b"last")
            assert until(lambda: ("dt/x", b"last") in cloud.heard)
            assert ("private/x", b"no") not in cloud.heard
            assert cloud.heard.count(("dt/x", b"up")) == 1
            taken = 'connection_messages_taken{connection="cloud"}'
            assert until(lambda: status_of(file)["counters"][taken] == 2)
            assert [connection["connected"] for connection in status_of(file)["connections"]] == [True, True]
        finally:
            cloud.close()
            device.close()


def test_a_topic_too_long_for_the_cloud_goes_neither_there_nor_into_a_stream_that_leads_there(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    text = file.read_text().replace("[cloud]\n", "[cloud]\ntopic_levels_max = 4\n")
    stream = '[[stream]]\nname = "kept"\nfrom = ["broker"]\ntopics = ["log/#"]\n'
    file.write_text(text + stream)
    with running(file) as process:
        wait_until_subscribed(process, brokers)
        cloud, device = Client(brokers[0].port, "#"), Client(brokers[1].port)
        try:
            for topic in ("dt/2/3/4/5", "log/2/3/4/5", "dt/2/3/4", "log/2/3/4"):
                device.publish(topic, b"x")
            assert until(lambda: {("dt/2/3/4", b"x"), ("log/2/3/4", b"x")} <= set(cloud.heard))
            counted = status_of(file)["counters"]
            assert counted['connection_messages_refused{connection="cloud",reason="topic_levels"}'] == 1
            assert counted['messages_refused{reason="topic_levels",source="broker"}'] == 1
            assert counted['connection_opens{connection="cloud"}'] == 1
            assert len(set(cloud.heard)) == 2
        finally:
            cloud.close()
            device.close()


def test_watch_shows_what_is_routed_until_it_is_ended(file: Path, brokers: tuple[Mosquitto, Mosquitto]) -> None:
    with running(file) as process:
        wait_until_subscribed(process, brokers)
        command = [sys.executable, "-m", "edge.cli", "watch", "dt/#", "--config", str(file), "--json"]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as watcher:
            device = Client(brokers[1].port)
            try:
                assert watcher.stdout is not None
                assert json.loads(watcher.stdout.readline()) == {"watching": "dt/#"}
                device.publish("dt/x", b'{"c": 1}')
                row = json.loads(watcher.stdout.readline())
                assert (row["source"], row["topic"], row["payload"], row["qos"]) == ("broker", "dt/x", '{"c": 1}', 1)
            finally:
                device.close()
                watcher.send_signal(signal.SIGINT)
            assert watcher.wait(15) == 0


def test_sigterm_ends_the_gateway_in_good_order(file: Path) -> None:
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        process.terminate()
        wait_for_event(process, "gateway_stopped")
        assert process.wait(15) == 0
    assert not (file.parent / "state/control.sock").exists()


def test_a_second_gateway_on_the_same_data_dir_is_refused_with_the_first_ones_pid(file: Path) -> None:
    with running(file) as process:
        wait_for_event(process, "gateway_started")
        second = edge("run", "--config", str(file))
        assert second.returncode == 78
        assert f"pid {process.pid}" in second.stderr
        assert process.poll() is None


def test_a_gateway_killed_hard_starts_again_on_what_it_left(file: Path) -> None:
    with running(file) as process:
        wait_for_event(process, "gateway_started")
        process.kill()
        process.wait(15)
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        assert status_of(file)["gateway"] == "g"


def test_check_config_says_valid_or_names_the_fix(file: Path) -> None:
    good = edge("check-config", str(file))
    assert (good.returncode, good.stdout) == (0, f"{file}: gateway g, 0 board(s), 2 route(s): valid\n")
    assert json.loads(edge("check-config", str(file), "--json").stdout)["cloud"]["keepalive_s"] == 30
    file.write_text(file.read_text().replace("backoff_s_max", "backof_s_max"))
    bad = edge("check-config", str(file))
    assert bad.returncode == 78
    assert bad.stderr == f"edge: {file}: cloud.backof_s_max: is not a known field. Did you mean backoff_s_max?\n"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--version"], 0),
        ([], 2),
        (["dance"], 2),
        (["check-config", "none.toml"], 78),
        (["status", "--socket", "none"], 1),
    ],
)
def test_exit_codes_are_those_that_conventions_name(argv: list[str], code: int) -> None:
    assert edge(*argv).returncode == code


def test_a_data_dir_that_cannot_be_made_is_a_configuration_error(file: Path) -> None:
    (file.parent / "state").write_text("a file, not a folder")
    refused = edge("run", "--config", str(file))
    assert refused.returncode == 78
    assert "gateway.data_dir" in refused.stderr
