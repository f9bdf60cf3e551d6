import socket
import subprocess
import threading
from pathlib import Path

import pytest

from edge_tools.mosquitto import HOST, Bridge, Mosquitto, MosquittoFailed
from edge_tools.pki import Credential


def publish(broker: Mosquitto, topic: str, text: str, credential: Credential | None = None) -> int:
    command = ["mosquitto_pub", "-V", "5", "-q", "1", "-h", HOST, "-t", topic, "-m", text]
    if credential is None:
        command += ["-p", str(broker.port)]
    else:
        command += ["-p", str(broker.tls_port), "--cafile", str(credential.ca)]
        command += ["--cert", str(credential.certificate), "--key", str(credential.key)]
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode


def subscribe(broker: Mosquitto, topic: str) -> "subprocess.Popen[str]":
    command = ["mosquitto_sub", "-i", "listener", "-q", "1", "-C", "1", "-W", "20", "-h", HOST]
    process = subprocess.Popen([*command, "-p", str(broker.port), "-t", topic], stdout=subprocess.PIPE, text=True)
    broker.wait_log("Sending SUBACK to listener")
    return process


def test_it_listens_once_started_and_keeps_its_port_over_a_restart(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        port = broker.port
        assert publish(broker, "a", "1") == 0
        broker.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), 5)
        broker.start()
        assert broker.port == port
        assert publish(broker, "a", "2") == 0


def test_a_client_without_a_certificate_gets_nowhere(cloud_broker: Mosquitto, thing_credential: Credential) -> None:
    command = ["mosquitto_pub", "-h", HOST, "-p", str(cloud_broker.tls_port), "--cafile", str(thing_credential.ca)]
    assert subprocess.run([*command, "-t", "a", "-m", "1"], check=False, capture_output=True).returncode != 0


def test_a_thing_publishes_its_own_topics_only(cloud_broker: Mosquitto, thing_credential: Credential) -> None:
    publish(cloud_broker, "dt/gateway-1/temp", "mine", thing_credential)
    publish(cloud_broker, "dt/gateway-2/temp", "not mine", thing_credential)
    cloud_broker.stop()
    log = cloud_broker.log_text()
    assert "Denied PUBLISH" in log
    assert [line.rpartition("'")[0].rpartition("'")[2] for line in log.splitlines() if "Denied PUBLISH" in line] == [
        "dt/gateway-2/temp"
    ]


def test_a_bridge_over_mutual_tls_carries_what_it_is_told_to(
    tmp_path: Path, server_credential: Credential, observer_credential: Credential
) -> None:
    with Mosquitto(tmp_path / "far", tls=server_credential) as far:
        bridge = Bridge("up", far.tls_port, ["dt/# out 1"], host="localhost", credential=observer_credential)
        with Mosquitto(tmp_path / "near", bridges=[bridge]) as near, subscribe(far, "dt/#") as process:
            assert publish(near, "dt/b1/temp", "21.5") == 0
            assert process.communicate(timeout=20)[0] == "21.5\n"


def test_a_configuration_it_refuses_is_shown_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(MosquittoFailed, match="no_such_option"):
        Mosquitto(tmp_path, options=["no_such_option true"]).start()


def test_a_broker_started_again_keeps_its_port_although_somebody_else_has_it_for_a_while(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    broker.start()
    port = broker.port
    broker.stop()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((HOST, port))
        thief.listen()
        threading.Timer(1.0, thief.close).start()
        broker.start()
    assert broker.port == port
    broker.stop()
