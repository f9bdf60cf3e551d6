"""How soon a function's changed code, or a changed rule, is at work in the real gateway: 100 messages a second go
through it meanwhile, and each must come out, by the old or by the new. The time is from the replacement of the file to
the first message that the new made, as a subscriber of the broker that stands for the cloud sees it."""

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.mqtt import packets as p
from edge.mqtt.codes import V311
from edge.mqtt.reader import Parser
from edge_tools.mosquitto import Mosquitto
from tests.bench.figures import Context, NoFigure, check_all_arrived
from tests.bench.relay.contenders import gateway_of
from tests.bench.relay.flow import READY_S
from tests.bench.relay.raw import HOST, READ_BYTES, Counter, Publisher, number_in

MESSAGES: Final = 300
CHANGED_AT: Final = 100
INTERVAL_S: Final = 0.01
PATIENCE_S: Final = 5.0
GOAL_S: Final = 1.0

_CODE = """
from edge import on, publish


@on("dt/+/temp")
def again(message):
    publish("WHICH/function", message.payload)
"""
_SECTIONS = f"""
[broker]
host = "{HOST}"
port = PORT
tls = false
client_id = "change-local"
session_expiry_s = 0
"""
_FUNCTION = """
[[function]]
name = "again"
file = "again.py"
from = ["broker"]
subscribe = ["dt/+/temp"]
publish = ["old/#", "new/#"]
to = ["cloud"]
"""
_RULE = """
[[rule]]
name = "again"
from = ["broker"]
to = ["cloud"]
topic = "WHICH/rule"
sql = "SELECT * FROM 'dt/+/temp' WHERE c > LEAST"
"""


def function_live_s(context: Context, local: Mosquitto, cloud: Mosquitto) -> float:
    def write(folder: Path, which: str) -> None:
        _replace(folder / "again.py", _CODE.replace("WHICH", which))

    return _measure(context, local, cloud, _FUNCTION, write)


def rule_live_s(context: Context, local: Mosquitto, cloud: Mosquitto) -> float:
    def write(folder: Path, which: str) -> None:
        file = folder / "gateway.toml"
        if which == "new":
            _replace(file, file.read_text().replace("old/rule", "new/rule").replace("> -1000", "> -2000"))

    return _measure(context, local, cloud, _RULE.replace("WHICH", "old").replace("LEAST", "-1000"), write)


def _measure(
    context: Context, local: Mosquitto, cloud: Mosquitto, section: str, write: Callable[[Path, str], None]
) -> float:
    folder = context.folder("gateway")
    write(folder, "old")
    relay = gateway_of(cloud.port, None, folder, _SECTIONS.replace("PORT", str(local.port)) + section, local.port)
    publisher, watcher = Publisher(local.port, "publisher"), _Watcher(Counter(cloud.port, "watcher", "old/#", "new/#"))
    relay.start()
    try:
        began = time.monotonic()
        while not watcher.arrived:
            if time.monotonic() > began + READY_S:
                raise NoFigure("nothing was carried")
            publisher.publish([0], _topic)
            watcher.look(0.2)
        changed, due = 0.0, time.monotonic()
        for number in range(1, MESSAGES + 1):
            if number == CHANGED_AT:
                write(folder, "new")
                changed = time.monotonic()
            publisher.publish_one(number, _topic(number))
            due += INTERVAL_S
            while (left := due - time.monotonic()) > 0:
                watcher.look(left)
        end = time.monotonic() + PATIENCE_S
        while len(watcher.arrived) <= MESSAGES and time.monotonic() < end:
            watcher.look(0.1)
        check_all_arrived("messages beside the change", MESSAGES + 1, len(watcher.arrived))
        if not watcher.new_at:
            raise NoFigure("the change was never at work")
        return watcher.new_at - changed
    finally:
        watcher.counter.close()
        publisher.close()
        relay.stop()


class _Watcher:
    """arrived: numbers; new_at: when the first message came that the new made."""

    def __init__(self, counter: Counter) -> None:
        self.counter, self._parser = counter, Parser(V311)
        self.arrived: set[int] = set()
        self.new_at = 0.0

    def look(self, wait_s: float) -> None:
        """At what comes next, if anything does so soon."""
        ready, _, _ = select.select([self.counter.socket], [], [], wait_s)
        if not ready:
            return
        now = time.monotonic()
        for one in self._parser.feed(self.counter.socket.recv(READ_BYTES)):
            if isinstance(one, p.Publish):
                self.arrived.add(number_in(one.payload))
                if one.topic.startswith("new/") and not self.new_at:
                    self.new_at = now


def _topic(_: int) -> str:
    return "dt/b1/temp"


def _replace(file: Path, text: str) -> None:
    """Whole, as an editor or a deployment does."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, file)
