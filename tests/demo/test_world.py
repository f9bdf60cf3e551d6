"""The demo's pieces that need no board: its gateway file, its broker's rules, its judge at a real mosquitto."""

from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.config import load_config
from edge_tools.demo import __main__ as demo
from edge_tools.demo.judge import ANSWERS, MEANS, RESULTS, Judge
from edge_tools.demo.world import EXAMPLES, FILE, GATEWAY, JUDGE, access_rules, gateway_file, things
from edge_tools.mosquitto import HOST, THING_ACL, Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca


def test_the_gateway_file_is_valid_with_quotes_and_spaces_in_its_paths(tmp_path: Path) -> None:
    names = things(2)
    ports = [tmp_path / f'a "quoted" folder/{name}/port' for name in names]
    credential = Credential(certificate=tmp_path / "c.pem", key=tmp_path / "c key", ca=tmp_path / "ca.pem")
    file = tmp_path / "gateway.toml"
    file.write_text(gateway_file(names, ports, 8883, credential))
    config = load_config(str(file))
    assert [board.port for board in config.boards] == [str(port) for port in ports]
    assert config.cloud is not None
    assert config.cloud.key == str(tmp_path / "c key")
    assert {(route.source, route.to) for route in config.routes} == {("boards", ("cloud",)), ("cloud", ("boards",))}
    example = load_config(str(EXAMPLES / FILE))
    assert (config.routes, config.streams, config.rules) == (example.routes, example.streams, example.rules)
    assert [rule.name for rule in config.rules] == ["mean"]
    assert [function.name for function in config.functions] == ["fahrenheit"]


def for_publish() -> Any:
    """paho's Properties takes its attributes at run time and is not typed."""
    return Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]


class Cloud:
    """A mosquitto with the demo's rules, its judge, and a client that plays the gateway."""

    def __init__(self, folder: Path) -> None:
        authority = make_ca(folder / "ca")
        server = issue_server(authority, folder, ["localhost", HOST])
        self.broker = Mosquitto(folder / "cloud", plain=False, tls=server, acl=access_rules(["board1"]))
        self.judge = Judge(JUDGE, ["board1"], issue_client(authority, folder, JUDGE))
        self.credential = issue_client(authority, folder, GATEWAY)

    def play_gateway(self) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=GATEWAY, protocol=paho.MQTTv5)
        client.tls_set(str(self.credential.ca), str(self.credential.certificate), str(self.credential.key))
        client.on_message = self._answer
        client.connect(HOST, self.broker.tls_port)
        client.subscribe("cmd/+/#", qos=1)
        client.loop_start()
        return client

    def _answer(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        asked: Any = message.properties
        properties = for_publish()
        properties.CorrelationData = asked.CorrelationData
        client.publish(asked.ResponseTopic, message.payload, qos=1, properties=properties)

    @staticmethod
    def reading(sequence: int) -> Any:
        properties = for_publish()
        properties.UserProperty = [("thing", "board1"), ("boot", "3"), ("seq", str(sequence))]
        return properties


def test_the_judge_counts_readings_and_answers_over_mutual_tls_and_others_topics_are_denied(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    tally = cloud.judge.tally
    with cloud.broker:
        cloud.judge.start(HOST, cloud.broker.tls_port)
        gateway = cloud.play_gateway()
        cloud.broker.wait_log(f"Sending SUBACK to {GATEWAY}")
        for sequence in (1, 2, 2):
            gateway.publish("dt/board1/temp", b'{"c":21.5}', qos=1, properties=cloud.reading(sequence))
        gateway.publish(f"{MEANS}/board1", b'{"board":"board1","c_avg":21.5,"c_max":21.5,"n":2,"from_ms":4000}', qos=1)
        gateway.publish(f"{RESULTS}/board1", b'{"f":70.7,"boot":3,"seq":1}', qos=1)
        command = cloud.judge.command("board1", "ping", b"hello")
        assert cloud.judge.wait(lambda: command.answer is not None and tally.received("board1") == 2, 10)
        assert cloud.judge.wait(lambda: tally.in_means("board1") == 2 and tally.means_fit("board1"), 10)
        assert cloud.judge.wait(lambda: tally.right_results("board1") == 1, 10)
        gateway.publish("dt/board2/temp", b'{"c":9}', qos=1, properties=cloud.reading(1))
        cloud.broker.wait_log("Denied PUBLISH from demo-gateway")  # and mosquitto 2.0.11 hangs up on it
        gateway.disconnect()
        gateway.loop_stop()
        cloud.judge.stop()
    assert command.answer == b"hello"
    assert tally.boards["board1"].repeated == 1
    assert tally.strangers == 0
    assert tally.boards["board1"].temperature_c == 21.5


def test_the_rules_give_the_gateway_its_own_boards_only() -> None:
    rules = access_rules(["board1"])
    assert "topic write dt/board1/#" in rules
    assert f"topic write {ANSWERS}/#" in rules
    assert {f"topic write {MEANS}/board1", f"topic write {RESULTS}/board1"} < set(rules)
    assert not {"topic write dt/#", "topic readwrite #", *THING_ACL} & set(rules)


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--boards", "0"], ["--second", "3"], ["--seconds", "nan"]])
def test_wrong_arguments_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(arguments)
    assert ended.value.code == 2
    assert "usage: ./tools/demo" in capsys.readouterr().err
