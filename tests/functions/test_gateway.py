"""Functions in the real gateway process beside real mosquittos."""

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from edge_tools.mosquitto import Mosquitto
from tests.processes import HEAD, Client, edge, running, until, wait_for_event

CONFIG = (
    HEAD
    + """
[[function]]
name = "double"
file = "double.py"
from = ["broker"]
subscribe = ["dt/#"]
publish = ["out/#"]
to = ["cloud"]
"""
)

DOUBLE = """\
from edge import on, publish

@on("dt/+")
def double(message):
    publish("out/" + message.topic[3:], str(2 * int(message.payload)))
"""


class World:
    """Two brokers, and clients on them."""

    def __init__(self, folder: Path, cloud: Mosquitto, broker: Mosquitto) -> None:
        self.folder, self.cloud_broker, self.broker = folder, cloud, broker
        self.file = folder / "gateway.toml"
        self.file.write_text(CONFIG.format(cloud=cloud.port, broker=broker.port))
        self.cloud = Client(cloud.port, "#")
        self.source = Client(broker.port)
        self.code(DOUBLE)

    def code(self, text: str, name: str = "double.py") -> None:
        (self.folder / name).write_text(dedent(text))

    def more(self, text: str) -> None:
        """Add to the gateway file."""
        self.file.write_text(self.file.read_text() + dedent(text))

    def function(self, name: str = "double") -> dict[str, Any]:
        done = edge("function", "show", name, "--config", str(self.file), "--json")
        assert done.returncode == 0, done.stderr
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown

    def wait_subscribed(self) -> None:
        self.broker.wait_log("Sending SUBACK to g")

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for heard, payload in list(self.cloud.heard) if heard == topic]

    def close(self) -> None:
        self.cloud.close()
        self.source.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Mosquitto(tmp_path / "c") as cloud, Mosquitto(tmp_path / "b") as broker:
        one = World(tmp_path, cloud, broker)
        try:
            yield one
        finally:
            one.close()


def test_a_message_reaches_the_function_and_what_it_publishes_goes_on(world: World) -> None:
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        world.source.publish("dt/x", *[b"%d" % number for number in range(200)])
        assert until(lambda: len(world.payloads("out/x")) >= 200)
        assert world.payloads("out/x") == [b"%d" % (2 * number) for number in range(200)]


INVOKED = """\
from edge import on, publish

@on("dt/+")
def run(message):
    print("got", message.payload)
    publish("out/x", b"published")
    if message.payload == b"bad":
        raise ValueError("bad payload")
    return {"topic": message.topic}
"""


def invoke(world: World, payload: bytes, *argv: str) -> tuple[int, dict[str, Any]]:
    event = world.folder / "event"
    event.write_bytes(payload)
    done = edge(
        "invoke", "double", "--event", str(event), "--topic", "dt/x", "--config", str(world.file), "--json", *argv
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("gateway_runs", [True, False])
def test_invoke_shows_what_a_call_gives_publishes_and_prints(world: World, *, gateway_runs: bool) -> None:
    world.code(INVOKED)
    with contextlib.ExitStack() as stack:
        if gateway_runs:
            wait_for_event(stack.enter_context(running(world.file)), "function_ready")
        code, row = invoke(world, b"good")
        assert (code, row["ok"], row["result"]) == (0, True, '{"topic":"dt/x"}')
        assert row["publishes"] == [{"topic": "out/x", "payload": "published", "qos": 1}]
        assert row["logs"] == ["got b'good'"]
        assert row["duration_ms"] > 0
        code, row = invoke(world, b"bad")
        assert (code, row["ok"], row["error"]) == (1, False, "ValueError")
        assert 'raise ValueError("bad payload")' in row["traceback"]
        if gateway_runs:
            assert until(lambda: world.payloads("out/x") == [b"published"] * 2)
        else:
            assert world.payloads("out/x") == []


def test_invoke_without_a_gateway_says_why_code_cannot_be_loaded(world: World) -> None:
    world.code("import nothing_of_this_name")
    code, row = invoke(world, b"")
    assert (code, row["error"]) == (1, "NotLoaded")
    assert "nothing_of_this_name" in row["message"]


def test_a_function_is_listed_with_what_holds_it(world: World) -> None:
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        shown = world.function()
        assert (shown["state"], shown["subscribed"], shown["last_error"]) == ("ready", ["dt/+"], "")
        assert any(line.startswith("memory: ") for line in shown["contained_by"])
        assert shown["memory_bytes"] > 0
        listed = json.loads(edge("function", "list", "--config", str(world.file), "--json").stdout)
        assert [one["name"] for one in listed] == ["double"]
        assert listed[0]["publishes_refused"] == 0
        assert "publishes_refused: 0" in edge("function", "show", "double", "--config", str(world.file)).stdout
        assert "function double: ready" in edge("status", "--config", str(world.file)).stdout
        assert edge("function", "show", "none", "--config", str(world.file)).returncode == 2


def test_code_that_changes_is_live_within_a_second_and_loses_nothing(world: World) -> None:
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        stop = threading.Event()
        sent: list[bytes] = []

        def load() -> None:
            while not stop.is_set():
                payload = b"%d" % len(sent)
                world.source.publish("dt/x", payload)
                sent.append(payload)
                time.sleep(0.003)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            for factor in (3, 4, 5):
                world.code(DOUBLE.replace("2 *", f"{factor} *"))
                changed = wait_for_event(process, "function_ready")
                assert until(lambda: world.function()["version"] == changed["version"])  # noqa: B023
            world.code("this is no Python")
            refused = wait_for_event(process, "function_change_refused")
            assert "SyntaxError" in str(refused["problem"])
            shown = world.function()
            assert (shown["state"], shown["version"]) == ("ready", changed["version"])
        finally:
            stop.set()
            thread.join()
        assert until(lambda: len(world.payloads("out/x")) >= len(sent), 60)
        got = [int(payload) for payload in world.payloads("out/x")]
        factors = [0 if not number else value / number for number, value in enumerate(got)]
        assert sorted(set(factors[1:])) == [2, 3, 4, 5]
        assert factors[1:] == sorted(factors[1:])
        assert world.function()["errors"] == 0


def test_a_killed_worker_is_replaced_and_what_it_had_is_called_again(world: World) -> None:
    world.code("""\
        import time
        from edge import on, publish

        @on("dt/+")
        def slow(message):
            time.sleep(0.02)
            publish("out/x", message.payload)
        """)
    payloads = [b"%d" % number for number in range(150)]
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        world.source.publish("dt/x", *payloads)
        for _ in range(2):
            (pid,) = world.function()["pids"]
            os.kill(pid, signal.SIGKILL)
            ended = wait_for_event(process, "function_worker_ended")
            assert ended["reason"] == "signal"
            wait_for_event(process, "function_ready")
        assert until(lambda: set(payloads) <= set(world.payloads("out/x")))
        got = world.payloads("out/x")
        assert list(dict.fromkeys(got)) == payloads
        assert len(got) <= len(payloads) + 2
        shown = world.function()
        assert (shown["restarts"], shown["dead_letters"]) == (2, 0)


def test_a_killed_gateway_calls_every_message_it_took_and_leaves_no_worker_behind(world: World) -> None:
    world.code("""\
        import time
        from edge import on, publish

        @on("dt/+")
        def slow(message):
            time.sleep(0.01)
            publish("out/x", message.payload)
        """)
    payloads = [b"%d" % number for number in range(300)]
    done = 0
    for part in range(3):
        with running(world.file) as process:
            wait_for_event(process, "function_ready")
            assert until(lambda: world.broker.log_text().count("Sending SUBACK to g") > part)  # noqa: B023
            world.source.publish("dt/x", *payloads[100 * part : 100 * part + 100])
            (pid,) = world.function()["pids"]
            process.kill()
            process.wait(15)
            assert until(lambda: not Path(f"/proc/{pid}").exists())  # noqa: B023
            done = len(world.payloads("out/x"))
    assert done < 300
    with running(world.file) as process:
        assert until(lambda: set(payloads) <= set(world.payloads("out/x")))


def test_a_poison_message_ends_in_the_dead_letter_stream_with_its_error(world: World) -> None:
    world.more("interval_s = 0.05\n")
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        world.source.publish("dt/x", b"1", b"poison", b"2")
        assert until(lambda: world.payloads("out/x") == [b"2", b"4"])
        rows = edge("stream", "export", "dead-letter", "--config", str(world.file)).stdout.splitlines()
        (row,) = map(json.loads, rows)
        assert row["topic"] == "dead-letter/double/dt/x"
        letter = json.loads(row["payload"])
        assert (letter["payload"], letter["attempts"]) == ("poison", 3)
        assert "ValueError: invalid literal for int()" in letter["error"]
    # A dead-letter stream that no function names any more keeps what it holds, and keeps nobody from starting.
    world.file.write_text(world.file.read_text().partition("[[function]]")[0])
    with running(world.file) as process:
        wait_for_event(process, "gateway_started")


def test_a_function_that_is_gone_keeps_its_inbox_and_is_told_at_the_start(world: World) -> None:
    world.code("import nothing_of_this_name")
    whole = world.file.read_text()
    with running(world.file) as process:
        wait_for_event(process, "function_not_loaded")
        world.wait_subscribed()
        world.source.publish("dt/x", b"1", b"2")
        assert until(lambda: world.function()["backlog"] == 2)
    world.file.write_text(whole.partition("[[function]]")[0])
    with running(world.file) as process:
        told = wait_for_event(process, "function_gone")
        assert (told["function"], told["messages_kept"]) == ("double", 2)
    world.file.write_text(whole)
    world.code(DOUBLE)
    with running(world.file):
        assert until(lambda: world.payloads("out/x") == [b"2", b"4"])


def test_a_program_of_any_kind_speaks_lines_of_json(world: World) -> None:
    world.code(
        """\
        #!/bin/sh
        echo started >&2
        while read -r line; do
          id=${line#*\\"id\\":}; id=${id%%,*}
          echo "{\\"publish\\":\\"out/sh\\",\\"payload\\":\\"call $id\\"}"
          echo "{\\"id\\":$id,\\"result\\":\\"done $id\\"}"
        done
        """,
        "program.sh",
    )
    (world.folder / "program.sh").chmod(0o755)
    world.file.write_text(world.file.read_text().replace('file = "double.py"', 'exec = ["./program.sh"]'))
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        logged = wait_for_event(process, "function_logged")
        assert (logged["function"], logged["pipe"], logged["line"]) == ("double", "stderr", "started")
        world.source.publish("dt/x", b"1", b"2", b"3")
        assert until(lambda: world.payloads("out/sh") == [b"call 1", b"call 2", b"call 3"])
        code, row = invoke(world, b"{}")
        assert (code, row["result"]) == (0, "done 4")
    code, row = invoke(world, b"{}")
    assert (code, row["result"], row["logs"]) == (0, "done 1", ["started"])


SHELL = r"""
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  echo "{\"publish\":\"out/x\",\"payload\":\"WORD $id\"}"; echo "{\"id\":$id}"
done
"""
AWK = r"""
{
  match($0, /"id":[0-9]+/); id = substr($0, RSTART + 5, RLENGTH - 5)
  printf "{\"publish\":\"out/x\",\"payload\":\"WORD %s\"}\n{\"id\":%s}\n", id, id; fflush()
}
"""
PYTHON = """
import json, sys
for line in sys.stdin:
    id = json.loads(line)["id"]
    print(json.dumps({"publish": "out/x", "payload": f"WORD {id}"}), json.dumps({"id": id}), sep="\\n", flush=True)
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "functions/x.sh"], SHELL),
        (["awk", "-W", "interactive", "-f", "x.awk"], AWK),
        (["python3", "functions/x.py"], PYTHON),
    ],
    ids=["sh", "awk", "python3"],
)
def test_an_interpreter_gets_the_file_it_is_to_run_and_it_anew_when_that_changes(
    world: World, command: list[str], code: str
) -> None:
    file = world.folder / command[-1]
    file.parent.mkdir(exist_ok=True)
    file.write_text(code.replace("WORD", "call"))
    world.file.write_text(world.file.read_text().replace('file = "double.py"', f"exec = {json.dumps(command)}"))
    assert edge("check-config", str(world.file)).returncode == 0
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        world.source.publish("dt/x", b"1", b"2")
        assert until(lambda: world.payloads("out/x") == [b"call 1", b"call 2"])
        file.write_text(code.replace("WORD", "anew"))
        wait_for_event(process, "function_changed")
        wait_for_event(process, "function_ready")
        world.source.publish("dt/x", b"3")
        assert until(lambda: len(world.payloads("out/x")) == 3)
        assert world.payloads("out/x")[-1].startswith(b"anew")
    world.file.write_text(world.file.read_text().replace(f'"{command[0]}"', f'"no-{command[0]}"'))
    done = edge("check-config", str(world.file))
    assert (done.returncode, f"there is no program 'no-{command[0]}'" in done.stderr) == (78, True)


def test_files_that_are_not_there_are_refused_at_the_start(world: World) -> None:
    (world.folder / "double.py").unlink()
    for command in (("run", "--config", str(world.file)), ("check-config", str(world.file))):
        done = edge(*command)
        assert done.returncode == 78
        assert "function[1]" in done.stderr
        assert "double.py: No such file" in done.stderr


def test_secrets_are_given_and_kept_from_other_functions(world: World) -> None:
    (world.folder / "key").write_text("sesame")
    world.code("""\
        from edge import on, publish, secret

        @on("dt/+")
        def tell(message):
            return secret("key")
        """)
    world.code(
        """\
        import glob
        from edge import on

        @on("dt/+")
        def look(message):
            found = glob.glob(message.payload.decode(), recursive=True)
            return [open(path).read() for path in found if not path.endswith("/")]
        """,
        "other.py",
    )
    world.more("""\
        secrets = { key = "key" }

        [[function]]
        name = "other"
        file = "other.py"
        """)
    with running(world.file) as process:
        wait_for_event(process, "function_ready", times=2)
        assert invoke(world, b"")[1]["result"] == "sesame"
        pattern = f"{world.folder}/state/functions/double/secrets/*"
        event = world.folder / "event"
        event.write_text(pattern)
        done = edge("invoke", "other", "--event", str(event), "--topic", "dt/x", "--config", str(world.file), "--json")
        assert json.loads(done.stdout)["result"] in {"[]", None}, done.stdout


SAYS = """\
import os
from edge import on, publish

@on("dt/+")
def say(message):
    publish(os.environ["SAYS"] + "/x", message.payload)
"""


@pytest.mark.parametrize("starts", [True, False])
def test_grants_that_change_under_load_lose_nothing_whether_the_new_version_starts_or_not(
    world: World, *, starts: bool
) -> None:
    world.code(SAYS)
    old = world.file.read_text().replace("out/#", "ya/#") + 'environment = { SAYS = "ya" }\n'
    world.file.write_text(old)
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        for number in range(300):
            world.source.publish(f"dt/t{number % 10}", b"%d" % number)
            if number == 100:
                if not starts:
                    world.code("this is no Python")
                world.file.write_text(old.replace("ya", "yb"))
            time.sleep(0.005)
        if not starts:
            wait_for_event(process, "function_change_refused")
            world.source.publish("dt/x", b"300")
            assert until(lambda: len(world.payloads("ya/x")) == 301)
            world.code(SAYS)
        until_some(world, "yb/x", b"more")
        sent = {b"%d" % number for number in range(300)}
        assert until(lambda: sent <= {*world.payloads("ya/x"), *world.payloads("yb/x")})
        shown = world.function()
        assert (shown["errors"], shown["publishes_refused"], shown["denied"]) == (0, 0, 0)


def until_some(world: World, topic: str, payload: bytes) -> None:
    """Until something is on this topic, publishing to the function all the while."""

    def there() -> bool:
        if world.payloads(topic):
            return True
        world.source.publish("dt/x", payload)
        return False

    assert until(there)


@pytest.mark.parametrize("first", ["code", "file"])
def test_code_and_gateway_file_saved_together_go_together(world: World, first: str) -> None:
    old = world.file.read_text() + "max_attempts = 1\n"
    world.file.write_text(old)
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        names = ["out", "second", "third", "fourth"]
        for before, after in itertools.pairwise(names):
            world.source.publish("dt/x", b"1")
            for place in sorted(("code", "file"), key=lambda place: place != first):
                if place == "code":
                    world.code(DOUBLE.replace("out/", f"{after}/"))
                else:
                    world.file.write_text(old.replace("out/#", f"{after}/#"))
                time.sleep(0.1)
            until_some(world, f"{after}/x", b"2")
            assert until(lambda: world.payloads(f"{before}/x"))  # noqa: B023
        shown = world.function()
        assert (shown["errors"], shown["denied"], shown["publishes_refused"]) == (0, 0, 0)


def test_what_the_routes_refuse_is_listed_and_ends_as_a_dead_letter(world: World) -> None:
    text = world.file.read_text().replace('to = ["cloud"]', "max_attempts = 1")
    world.file.write_text(f'{text}[[route]]\nfrom = "function:double"\ntopic = "out/taken"\nto = ["cloud"]\n')
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        world.source.publish("dt/lost", b"1")
        world.source.publish("dt/taken", b"2")
        assert until(lambda: world.function()["dead_letters"] == 1)
        assert until(lambda: world.payloads("out/taken") == [b"4"])
        assert "1 publishes refused" in edge("function", "list", "--config", str(world.file)).stdout
        assert "publishes_refused" in edge("status", "--config", str(world.file)).stdout
