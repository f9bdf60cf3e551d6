"""A rule in a running gateway, from the local broker to the cloud; and a recording of what it saw."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from edge_tools.mosquitto import Mosquitto
from tests.processes import ENVIRONMENT, HEAD, Client, running, until, wait_for_event

RULES = """
[[rule]]
name = "mean"
sql = "SELECT topic(2) AS b, count(*) AS n FROM 'raw/+' GROUP BY topic(2), TUMBLINGWINDOW(ms, 200)"
from = ["broker"]
to = ["cloud"]
topic = "agg/${b}"
"""


def test_rows_of_a_window_reach_the_cloud_and_messages_can_be_recorded(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "c") as cloud, Mosquitto(tmp_path / "b") as broker:
        file = tmp_path / "gateway.toml"
        file.write_text(HEAD.format(cloud=cloud.port, broker=broker.port) + RULES)
        with running(file) as process:
            wait_for_event(process, "connected", times=2)
            output = tmp_path / "day.jsonl"
            command = [sys.executable, "-m", "edge.cli", "record", "raw/#", "--output", str(output)]
            with subprocess.Popen(
                [*command, "--config", str(file)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
            ) as recorder:
                assert recorder.stderr is not None
                assert "watching" in recorder.stderr.readline()
                judge, device = Client(cloud.port, "agg/#"), Client(broker.port)
                try:
                    for _ in range(5):
                        device.publish("raw/x", b"{}")
                    assert until(lambda: sum(json.loads(payload)["n"] for _, payload in judge.heard) == 5)
                    assert {topic for topic, _ in judge.heard} == {"agg/x"}
                    assert until(lambda: len(output.read_bytes().splitlines()) == 5)
                finally:
                    judge.close()
                    device.close()
                    recorder.send_signal(signal.SIGINT)
                assert recorder.wait(15) == 0
