"""The gateway file changed while the gateway runs, under load."""

import asyncio
import functools
import json
import re
import signal
from pathlib import Path
from typing import Any

from edge.config import Config, parse_config
from edge.metrics import Metrics
from edge.reload import Reload, ReloadStatus, differing
from edge_tools.mosquitto import Mosquitto
from tests.processes import HEAD, Client, running, status_of, until, wait_for_event

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
        self.judge, self.device = Client(cloud, "rule/#"), Client(broker)
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
        base = HEAD.format(cloud=cloud.port, broker=broker.port) + KEPT
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
                assert "rule[3].sql: rule " in status_of(file)["reload"]["refused"]
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


def test_filters_change_at_the_broker_with_the_routes_and_nothing_is_lost_or_stays_behind(tmp_path: Path) -> None:
    """Live, and over a kill: then the broker has kept the session, and sends twice what two of its filters take."""
    route = '[[route]]\nfrom = "broker"\ntopic = "{}"\nto = ["cloud"]\n'
    with Mosquitto(tmp_path / "c") as cloud, Mosquitto(tmp_path / "b") as broker:
        file = tmp_path / "gateway.toml"
        base = HEAD.format(cloud=cloud.port, broker=broker.port)
        file.write_text(base + route.format("raw/+"))
        device, judge = Client(broker.port), Client(cloud.port, "raw/#")
        sent = 0

        def numbers() -> list[int]:
            return [int(payload) for _, payload in list(judge.heard)]

        def let_go(topic_filter: str) -> bool:
            """Publishes until the broker has given the filter up, and a little longer."""
            nonlocal sent
            device.publish("raw/x", b"%d" % sent)
            sent += 1
            return (
                re.search(rf"Received UNSUBSCRIBE from g\n.*{re.escape(topic_filter)}\n", broker.log_text()) is not None
            )

        def each_comes_once() -> bool:
            nonlocal sent
            device.publish("raw/x", b"%d" % sent)
            sent += 1
            return until(lambda: sent - 1 in numbers()) and numbers().count(sent - 1) == 1

        try:
            with running(file) as process:
                wait_for_event(process, "connected", times=2)
                broker.wait_log("Sending SUBACK to g")
                for old, new in (("raw/+", "raw/#"), ("raw/#", "raw/x")):
                    file.write_text(base + route.format(new))
                    assert until(functools.partial(let_go, old))
                    assert until(each_comes_once)
                process.kill()
            file.write_text(base + route.format("raw/+"))
            device.publish("raw/x", b"%d" % sent)  # while it is away
            sent += 1
            with running(file):
                assert until(lambda: let_go("raw/x"))
                assert until(each_comes_once)
        finally:
            device.close()
            judge.close()
        assert list(dict.fromkeys(numbers())) == list(range(sent))
        assert json.loads((tmp_path / "state" / "broker.subscribed").read_bytes()) == ["raw/+"]


def test_what_needs_a_restart_is_named_as_the_file_names_it() -> None:
    old = parse_config('[gateway]\nname = "g"\n[cloud]\nhost = "h"\n[[stream]]\nname = "a"\n', "f")
    new = parse_config(
        '[gateway]\nname = "g"\n[cloud]\nhost = "i"\n[broker]\nhost = "h"\n[rules]\ncommit = "1 s"\n'
        '[[stream]]\nname = "a"\n[[stream]]\nname = "b"\n[[rule]]\nname = "r"\nsql = "x"\nfrom = ["cloud"]\n',
        "f",
    )
    assert differing(old, new) == ("cloud.host", "broker", "stream[2]", "rules.commit")
    assert differing(old, old) == ()


class Watched:
    """A gateway file, a table, and a Reload that notes what it is told to do."""

    def __init__(self, folder: Path) -> None:
        self.file, self.table = folder / "gateway.toml", folder / "table.csv"
        self.text = '[gateway]\nname = "g"\n[mqttsn.udp]\nhost = "h"\n'
        self.file.write_text(self.text)
        self.table.write_text("a,b\n")
        self.prepared: list[int] = []
        self.applied: list[int] = []
        self.answer = True
        config = parse_config(self.text, str(self.file))
        self.reload = Reload(config, Metrics(), prepare=self.prepare, files=lambda config: [str(self.table)])

    def prepare(self, config: Config) -> Any:
        self.prepared.append(len(config.rules))
        if not self.answer:
            raise RuntimeError("a fault of ours")
        rules = len(config.rules)
        return lambda: self.applied.append(rules)

    def rules(self, many: int) -> str:
        return self.text + "".join(f'[[rule]]\nname = "r{n}"\nsql = "x"\nfrom = ["udp"]\n' for n in range(many))

    async def seen(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


def watch(folder: Path, story: Any) -> None:
    async def run() -> None:
        watched = Watched(folder)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watched.reload.run())
            await watched.seen(lambda: watched.prepared == [0])
            await story(watched)
            task.cancel()

    asyncio.run(run())


def test_a_table_that_changes_is_looked_at_as_the_file_is(tmp_path: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.table.write_text("a,b\n1,2\n")
        await watched.seen(lambda: len(watched.applied) == 2)
        assert watched.prepared == watched.applied == [0, 0]
        assert watched.reload.status == ReloadStatus(2)

    watch(tmp_path, story)


def test_a_file_that_is_being_written_is_none_until_it_rests(tmp_path: Path) -> None:
    async def story(watched: Watched) -> None:
        for size in range(1, 40):  # about as long as two looks
            watched.file.write_text(watched.rules(3)[: -size % 40 * 2])
            await asyncio.sleep(0.015)
        watched.file.write_text(watched.rules(3))
        await watched.seen(lambda: watched.applied[-1] == 3)
        assert watched.applied == [0, 3]
        assert watched.reload.status == ReloadStatus(2)

    watch(tmp_path, story)


def test_a_fault_while_a_change_is_prepared_is_told_and_ends_nothing(tmp_path: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.answer = False
        watched.file.write_text(watched.rules(1))
        await watched.seen(lambda: watched.reload.status.refused)
        assert watched.reload.status.refused == "RuntimeError: a fault of ours"
        watched.file.unlink()
        await watched.seen(lambda: "cannot be read" in watched.reload.status.refused)
        watched.answer = True
        watched.file.write_text(watched.rules(2))
        await watched.seen(lambda: watched.applied[-1] == 2)
        assert watched.reload.status.refused == ""

    watch(tmp_path, story)


def test_a_rule_that_needs_what_only_a_restart_brings_is_refused_with_that(tmp_path: Path) -> None:
    async def story(watched: Watched) -> None:
        watched.file.write_text(watched.rules(1) + 'to = ["stream:s"]\n[[stream]]\nname = "s"\nexport = ""\n')
        await watched.seen(lambda: watched.reload.status.refused)
        assert "rule[1].to: 'stream:s' is nowhere in this file; it may need a restart for stream[1]" in (
            watched.reload.status.refused
        )
        assert watched.applied == [0]

    watch(tmp_path, story)
