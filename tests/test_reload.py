"""The gateway file changed while the gateway runs, under load."""

import json
import signal
from pathlib import Path
from typing import Any

from edge.config import parse_config
from edge.reload import differing
from edge_tools.mosquitto import Mosquitto
from tests.test_runtime import CONFIG, Device, running, status_of, until, wait_for_event

KEPT = """
[[rule]]
name = "all"
sql = "SELECT n FROM 'raw/+'"
from = ["broker"]
to = ["cloud"]
[[rule]]
name = "counted"
sql = "SELECT collect(n) AS c FROM 'raw/+' GROUP BY COUNTWINDOW(30)"
from = ["broker"]
to = ["cloud"]
"""
EXTRA = """
[[rule]]
name = "extra"
sql = "SELECT n, {version} AS version FROM '{topic}'"
from = ["broker"]
to = ["cloud"]
"""


class Load:
    """Publishes numbers one after the other; knows the rows of each rule."""

    def __init__(self, cloud: int, broker: int) -> None:
        self.judge, self.device = Device(cloud, "rule/#"), Device(broker, "none")
        self.sent = 0

    def send(self, many: int = 1, topic: str = "raw/x") -> None:
        for _ in range(many):
            self.sent += 1
            self.device.publish(topic, b'{"n":%d}' % self.sent)

    def rows(self, rule: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload in list(self.judge.heard) if topic == f"rule/{rule}"]

    def send_until(self, condition: Any, topic: str = "raw/x") -> None:
        def met() -> bool:
            self.send(topic=topic)
            return bool(condition())

        assert until(met)

    def close(self) -> None:
        self.judge.close()
        self.device.close()


def test_rules_change_under_load_and_no_message_is_lost(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "c") as cloud, Mosquitto(tmp_path / "b") as broker:
        file = tmp_path / "gateway.toml"
        base = CONFIG.format(cloud=cloud.port, broker=broker.port) + KEPT
        file.write_text(base)
        with running(file) as process:
            wait_for_event(process, "connected", times=2)
            broker.wait_log("Sending SUBACK to g")
            load = Load(cloud.port, broker.port)
            try:
                load.send(20)
                file.write_text(base + EXTRA.format(version=1, topic="raw/+"))
                load.send_until(lambda: load.rows("extra"))
                file.write_text(base + EXTRA.format(version=2, topic="raw/+").replace("SELECT n,", "SELECT n, WHAT"))
                load.send_until(lambda: status_of(file)["reload"]["refused"])
                assert "rule[3].sql: line 1, column" in status_of(file)["reload"]["refused"]
                file.write_text(base + EXTRA.format(version=2, topic="raw/+"))
                load.send_until(lambda: load.rows("extra")[-1]["version"] == 2)
                file.write_text(base + "[mqttsn]\nretries = 9\n")  # removed, beside what needs a restart
                load.send_until(lambda: load.rows("extra")[-1]["n"] < load.sent - 30)
                reload = {"applied": 3, "refused": "", "restart_needed": ["mqttsn.retries"]}
                assert status_of(file)["reload"] == reload
                here = load.sent
                file.write_text(base + EXTRA.format(version=3, topic="other/+"))  # a filter more at the broker
                load.send_until(lambda: load.rows("extra")[-1]["version"] == 3, topic="other/x")
                there = load.sent
                process.send_signal(signal.SIGHUP)
                load.send(30)
                assert until(lambda: load.rows("all")[-1]["n"] == load.sent)
            finally:
                load.close()
        every = [*range(1, here + 1), *range(there + 1, load.sent + 1)]
        assert [row["n"] for row in load.rows("all")] == every
        chunks = [row["c"] for row in load.rows("counted")]  # its windows went through all changes
        assert chunks == [every[at : at + 30] for at in range(0, len(every) // 30 * 30, 30)]
        first = [row["n"] for row in load.rows("extra") if row["version"] < 3]
        assert first == list(range(first[0], first[-1] + 1))  # none was missed between the versions
        last = [row["n"] for row in load.rows("extra") if row["version"] == 3]
        assert last == list(range(last[0], there + 1))


def test_what_needs_a_restart_is_named_as_the_file_names_it() -> None:
    old = parse_config('[gateway]\nname = "g"\n[cloud]\nhost = "h"\n[[stream]]\nname = "a"\n', "f")
    new = parse_config(
        '[gateway]\nname = "g"\n[cloud]\nhost = "i"\n[broker]\nhost = "h"\n[rules]\ncommit = "1 s"\n'
        '[[stream]]\nname = "a"\n[[stream]]\nname = "b"\n[[rule]]\nname = "r"\nsql = "x"\nfrom = ["cloud"]\n',
        "f",
    )
    assert differing(old, new) == ("cloud.host", "broker", "stream[2]", "rules.commit")
    assert differing(old, old) == ()
