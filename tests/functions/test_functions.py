"""All functions of a gateway: new code, a changed gateway file, calls of each other; their processes are fakes."""

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edge.cloud.shadows import Shadows
from edge.config import Config, parse_config
from edge.config_functions import FunctionSettings
from edge.errors import ConfigError, InputRejected
from edge.functions import wire
from edge.functions.asks import patience_s
from edge.functions.child import Launch, Listener
from edge.functions.functions import Functions
from edge.functions.sandbox import NotHeld
from edge.functions.wire import Call, Done, FromWorker, Invoke, Publish, Ready, Shadow, StartFailed
from edge.messages import Message, Outcome
from edge.metrics import Metrics
from edge.outbox.outbox import Outbox
from edge.router import Router
from edge.rules.build import read_rules, rule_nodes
from tests.functions.fakes import FakeChild, FakeSpawn, Receiver, Source, failing

GATEWAY = """
[gateway]
name = "g"
data_dir = "state"

[broker]
host = "127.0.0.1"
tls = false
"""
FUNCTION = """
[[function]]
name = "{name}"
file = "{name}.py"
from = ["broker"]
subscribe = ["{name}/#"]
publish = ["out/#"]
to = ["broker"]
"""


class House:
    """The runtime, as far as functions go."""

    def __init__(self, folder: Path, text: str, spawn: FakeSpawn) -> None:
        self.folder, self.spawn = folder, spawn
        self.metrics = Metrics()
        self.is_behind = False
        self.config = self.read(text)
        (folder / "state").mkdir(exist_ok=True)  # as the runtime does
        self.router = Router(self.config.all_routes, self.metrics)
        self.broker = Receiver()
        self.router.attach("broker", self.broker)
        self.outbox = Outbox(self.config, self.metrics, {})
        self.functions = Functions(
            self.config,
            self.router,
            self.metrics,
            lambda create_task: spawn,
            letters=self.outbox.dead_letters,
            shadows=Shadows(None, "g"),
            changed=self._reroute,
            is_behind=lambda: self.is_behind,
            rules=lambda: rule_nodes(self.rules),
        )
        self.source = Source()
        self._receipt = 0

    def read(self, text: str) -> Config:
        config = parse_config(GATEWAY + text, str(self.folder / "gateway.toml"))
        self.rules = read_rules(config)
        return config

    def apply(self, text: str) -> None:
        """As the runtime does when the gateway file changed."""
        self.config = self.read(text)
        self.functions.apply(self.config)

    def _reroute(self) -> None:
        self.router.change([*self.config.all_routes, *self.functions.kept_routes])

    def send(self, topic: str, *payloads: bytes) -> None:
        messages = []
        for payload in payloads:
            self._receipt += 1
            messages.append(Message(topic, payload, qos=1, receipt=self._receipt))
        self.router.route("broker", "", messages, self.source)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.01)

    async def ready(self, name: str, version: str = "") -> None:
        def is_ready() -> bool:
            status = self.functions.show(name)
            return status.state == "ready" and status.version != version

        await self.until(is_ready)


def lived(
    test: Callable[[House], Coroutine[Any, Any, None]], folder: Path, spawn: FakeSpawn, text: str = "", *codes: str
) -> None:
    async def run() -> None:
        for name in codes or ("a", "b", "c"):
            (folder / f"{name}.py").write_text(f"# {name}")
        house = House(folder, text or FUNCTION.format(name="a"), spawn)
        house.outbox.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(house.functions.run())
            try:
                await test(house)
            finally:
                house.functions.stop()
        house.outbox.close()

    asyncio.run(run())


def test_a_changed_file_is_taken_over_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(house: House) -> None:
        await house.ready("a")
        first = house.functions.show("a").version
        (tmp_path / "a.py").write_text("# a")
        os.utime(tmp_path / "a.py", (1, 1))
        await asyncio.sleep(1.2)
        assert len(spawn.children) == 1
        (tmp_path / "a.py").write_text("# another")
        await house.ready("a", first)
        assert [Path(child.launch.code).read_text() for child in spawn.children] == ["# a", "# another"]
        copies = tmp_path / "state/functions/a/code"
        await house.until(lambda: len(spawn.running) == 1)
        assert len(list(copies.iterdir())) == 2

    lived(test, tmp_path, spawn)


def test_what_runs_keeps_its_files_whatever_is_tried_beside_it(tmp_path: Path) -> None:
    slow = asyncio.Event()

    class Spawn(FakeSpawn):
        async def __call__(self, launch: Launch, listener: Listener) -> FakeChild:
            if Path(launch.code).read_text() == "# slow":
                await slow.wait()
            return await super().__call__(launch, listener)

    spawn = Spawn()
    spawn.answer = lambda launch: (
        StartFailed("SyntaxError") if "wrong" in Path(launch.code).read_text() else Ready(takes_all=True)
    )

    async def test(house: House) -> None:
        await house.ready("a")
        (first,) = spawn.children
        for code, version in (("# slow", 2), ("# wrong", 3)):
            (tmp_path / "a.py").write_text(code)
            await house.until(lambda version=version: house.functions._functions["a"].number == version)  # type: ignore[misc]
            await house.until(lambda: house.functions._functions["a"].renewal is None)
        assert Path(first.launch.code).read_text() == "# a"
        assert [Path(path).read_text() for path in first.launch.secrets.values()] == ["sesame"]
        slow.set()

    (tmp_path / "key").write_text("sesame")
    lived(test, tmp_path, spawn, FUNCTION.format(name="a") + 'secrets = { token = "key" }')


def test_a_file_that_goes_away_leaves_the_function_running(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(house: House) -> None:
        await house.ready("a")
        (tmp_path / "a.py").unlink()
        await house.until(lambda: "No such file" in house.functions.show("a").last_error)
        house.send("a/x", b"1")
        await house.until(lambda: len(spawn.calls) == 1)
        (tmp_path / "a.py").write_text("# a")
        await house.until(lambda: not house.functions.show("a").last_error)
        assert len(spawn.children) == 1, "it ran on all the while"

    lived(test, tmp_path, spawn)


def test_the_gateway_file_may_add_change_and_remove_functions_under_load_without_a_loss(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: Done(call.id))

    async def test(house: House) -> None:
        await house.ready("a")
        sent = 0

        async def load() -> None:
            nonlocal sent
            while True:
                house.send("a/x", b"%d" % sent)
                sent += 1
                await asyncio.sleep(0.001)

        loading = asyncio.create_task(load())
        await asyncio.sleep(0.1)
        house.apply(FUNCTION.format(name="a") + FUNCTION.format(name="b"))
        await house.ready("b")
        house.send("b/x", b"b")
        await house.until(lambda: b"b" in spawn.payloads())
        house.apply(FUNCTION.format(name="a") + "timeout_s = 3.0\nbytes_max = 16777216\nworkers = 2\n")
        await house.until(lambda: any(call.deadline_s == 3.0 for call in spawn.calls))
        with pytest.raises(InputRejected, match="no_such_function"):
            house.functions.show("b")
        await asyncio.sleep(0.1)
        loading.cancel()
        await house.until(lambda: len(house.source.outcomes) == house._receipt)
        await house.until(lambda: house.functions.show("a").backlog == 0)
        assert [call.payload for call in spawn.calls if call.topic == "a/x"] == [b"%d" % one for one in range(sent)]
        assert [call.payload for call in spawn.calls if call.topic == "b/x"] == [b"b"]
        assert set(house.source.outcomes.values()) == {Outcome.TAKEN}

    lived(test, tmp_path, spawn)


def granting(topic: str, more: str = "") -> str:
    return FUNCTION.format(name="a").replace("out/#", f"{topic}/#") + "max_attempts = 1\n" + more


def publishing(child: FakeChild, call: Call) -> list[FromWorker]:
    return [Publish(0, call.id, child.launch.settings.publish[0][:-1] + "x", call.payload), Done(call.id)]


@pytest.mark.parametrize("starts", [True, False])
def test_a_change_of_what_a_function_may_publish_under_load_loses_nothing_whether_it_starts_or_not(
    tmp_path: Path, *, starts: bool
) -> None:
    spawn = FakeSpawn(publishing)

    async def test(house: House) -> None:
        await house.ready("a")

        async def load(count: int) -> None:
            for _ in range(count):
                house.send("a/x", b"%d" % house._receipt)
                await asyncio.sleep(0.001)

        async def all_went() -> None:
            await house.until(lambda: len(house.broker.taken) == house._receipt)
            assert [message.payload for message in house.broker.taken] == [b"%d" % n for n in range(house._receipt)]
            shown = house.functions.show("a")
            assert (shown.errors, shown.denied, shown.publishes_refused) == (0, 0, 0)

        await load(50)
        if not starts:
            spawn.answer = lambda launch: StartFailed("ImportError", "none")
        house.apply(granting("other"))
        loading = asyncio.create_task(load(800))
        if not starts:
            await house.until(lambda: "ImportError" in house.functions.show("a").last_error)
            await loading
            await all_went()
            assert {message.topic for message in house.broker.taken} == {"out/x"}
            spawn.answer = lambda launch: Ready(takes_all=True)
            (tmp_path / "a.py").write_text("# mended")
        await house.until(lambda: house.broker.taken[-1].topic == "other/x" or (loading.done() and not starts))
        await loading
        await house.until(lambda: len(spawn.running) == 1 and spawn.running[0] is spawn.children[-1])
        await load(50)
        await all_went()
        assert house.broker.taken[-1].topic == "other/x"
        await house.until(lambda: not house.router.named("function:a", "", "out/x"))
        assert house.router.named("function:a", "", "other/x") == ("broker",)

    lived(test, tmp_path, spawn, granting("out"))


def test_routes_alone_change_at_once_and_those_of_a_removed_function_end_with_it(tmp_path: Path) -> None:
    open_: list[tuple[FakeChild, Call]] = []
    spawn = FakeSpawn(lambda child, call: open_.append((child, call)))
    route = '[[route]]\nfrom = "function:a"\ntopic = "out/#"\nto = ["boards"]\n'

    async def test(house: House) -> None:
        await house.ready("a")
        house.router.attach("boards", Receiver())
        house.apply(granting("out", route))
        assert set(house.router.named("function:a", "", "out/x")) == {"boards", "broker"}
        house.apply(granting("out"))
        assert house.router.named("function:a", "", "out/x") == ("broker",)
        house.send("a/x", b"1")
        await house.until(lambda: bool(open_))
        house.apply("")
        ((child, call),) = open_
        child.say(Publish(0, call.id, "out/x", b"1"), Done(call.id))
        assert [message.payload for message in house.broker.taken] == [b"1"]
        await house.until(lambda: not house.router.named("function:a", "", "out/x"))

    lived(test, tmp_path, spawn, granting("out"))


def test_an_old_route_by_which_a_function_would_feed_itself_is_not_kept(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)

    async def test(house: House) -> None:
        await house.ready("a")
        spawn.answer = lambda launch: StartFailed("ImportError", "none")
        house.apply(granting("other").replace("a/#", "out/#"))
        assert house.router.named("function:a", "", "out/x") == ()

    lived(test, tmp_path, spawn, granting("out"))


@pytest.mark.parametrize("closes", [True, False])
def test_an_old_route_by_which_a_function_would_feed_itself_through_a_rule_is_not_kept(
    tmp_path: Path, *, closes: bool
) -> None:
    spawn = FakeSpawn(publishing)
    rule = (
        '[[rule]]\nname = "r"\nfrom = ["broker"]\nsql = "SELECT * FROM \'out/#\'"\n'
        f'topic = "{"a" if closes else "b"}/again"\nto = ["broker"]\n'
    )
    more = '[[route]]\nfrom = "function:a"\ntopic = "aside/#"\nto = ["broker"]\n'
    aside = granting("out").replace('"out/#"', '"out/#", "aside/#"')

    async def test(house: House) -> None:
        await house.ready("a")
        spawn.answer = lambda launch: StartFailed("ImportError", "none")
        house.apply(granting("other") + rule)
        assert house.router.named("function:a", "", "out/x") == (() if closes else ("broker",))
        assert house.router.named("function:a", "", "aside/x") == ("broker",)

    lived(test, tmp_path, spawn, aside + more)


def test_settings_that_change_while_others_are_taken_over_are_taken_over_too(tmp_path: Path) -> None:
    class Slow(FakeSpawn):
        async def install(self, settings: FunctionSettings, folder: str) -> str:
            await asyncio.sleep(1.0)
            return folder

    spawn = Slow(publishing)

    async def test(house: House) -> None:
        await house.ready("a")
        house.apply(granting("second"))
        await house.until(lambda: house.functions._functions["a"].renewal is not None)
        house.apply(granting("third"))
        await house.until(lambda: bool(spawn.running) and spawn.running[-1].launch.settings.publish == ("third/#",))
        await house.until(lambda: len(spawn.running) == 1)
        house.send("a/x", b"1")
        await house.until(lambda: len(spawn.calls) == 1)
        assert [call.payload for call in spawn.running[0].calls] == [b"1"]
        assert house.router.named("function:a", "", "third/x") == ("broker",)

    lived(test, tmp_path, spawn, granting("out"))


def test_changed_code_waits_for_a_changed_gateway_file_that_is_not_taken_yet(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)

    async def test(house: House) -> None:
        await house.ready("a")
        (tmp_path / "a.py").write_text("# for the new settings")
        await asyncio.sleep(0.1)
        house.is_behind = True
        await asyncio.sleep(1.0)
        house.is_behind = False
        house.apply(granting("other"))
        await house.until(lambda: len(spawn.children) == 2)
        assert [child.launch.settings.publish for child in spawn.children] == [("out/#",), ("other/#",)]

    lived(test, tmp_path, spawn, granting("out"))


def test_a_removed_function_gets_nothing_more_and_goes_on_where_it_was_when_it_is_back(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call) if call.payload == b"later" else Done(call.id))

    async def test(house: House) -> None:
        await house.ready("a")
        house.send("a/x", b"later")
        await house.until(lambda: len(spawn.calls) == 1)
        house.apply("")
        house.send("a/x", b"refused")
        assert house.source.outcomes[2] is Outcome.REFUSED
        await house.until(lambda: not spawn.running)
        await asyncio.sleep(0.1)
        house.apply(FUNCTION.format(name="a"))
        await house.until(lambda: len(spawn.calls) >= 2)
        assert {call.payload for call in spawn.calls} == {b"later"}

    lived(test, tmp_path, spawn, FUNCTION.format(name="a") + "interval_s = 60.0\n")


def test_a_function_that_is_back_before_it_had_ended_begins_after_that(tmp_path: Path) -> None:
    """Two would write to one inbox."""
    open_: list[tuple[FakeChild, Call]] = []
    spawn = FakeSpawn(lambda child, call: open_.append((child, call)))

    async def test(house: House) -> None:
        await house.ready("a")
        house.send("a/x", b"1", b"2")
        await house.until(lambda: len(open_) == 1)
        house.apply("")
        house.apply(FUNCTION.format(name="a"))
        house.apply("")
        house.apply(FUNCTION.format(name="a") + FUNCTION.format(name="b"))
        await house.ready("b")
        assert house.functions.show("b").state == "ready"
        assert [one.name for one in house.functions.status()] == ["b"]
        house.send("a/x", b"3")
        await house.until(lambda: house.source.outcomes.get(3) is Outcome.TAKEN)
        for number, payload in enumerate((b"1", b"2", b"3", b"4")):
            await house.until(lambda number=number: len(open_) == number + 1)  # type: ignore[misc]
            child, call = open_[number]
            assert (child.pid == 1, call.payload) == (number == 0, payload)
            child.say(Done(call.id))
            if number == 1:
                house.send("a/x", b"4")

    lived(test, tmp_path, spawn)


def test_what_is_installed_for_a_function_that_is_taken_out_is_given_up(tmp_path: Path) -> None:
    """It would tidy away the code of the one that is back."""

    class Slow(FakeSpawn):
        begun = ended = 0

        async def install(self, settings: FunctionSettings, folder: str) -> str:
            self.begun += 1
            if self.begun == 1:
                await asyncio.sleep(1.0)
            self.ended += 1
            return ""

    spawn = Slow()

    async def test(house: House) -> None:
        await house.ready("a")
        (tmp_path / "a.py").write_text("# second")
        await house.until(lambda: spawn.begun == 1)
        house.apply("")
        await house.until(lambda: not spawn.running)
        (tmp_path / "a.py").write_text("# third")
        house.apply(FUNCTION.format(name="a"))
        await house.ready("a")
        await asyncio.sleep(1.2)
        assert spawn.ended == 0
        assert Path(spawn.running[0].launch.code).read_text() == "# third"

    lived(test, tmp_path, spawn)


def test_a_change_that_cannot_be_taken_over_leaves_all_as_it_was(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(house: House) -> None:
        await house.ready("a")
        house.apply(FUNCTION.format(name="a") + FUNCTION.format(name="nowhere"))
        with pytest.raises(InputRejected):
            house.functions.show("nowhere")
        spawn.answer = lambda launch: StartFailed("ImportError", "none")
        house.apply(FUNCTION.format(name="a") + "timeout_s = 5.0\n")
        await house.until(lambda: "ImportError" in house.functions.show("a").last_error)
        house.send("a/x", b"1")
        await house.until(lambda: len(spawn.calls) == 1)
        assert spawn.calls[0].deadline_s == 10.0

    lived(test, tmp_path, spawn)


def test_requirements_are_installed_before_the_first_call(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    (tmp_path / "r.txt").write_text("")

    async def test(house: House) -> None:
        house.send("a/x", b"1")
        await house.until(lambda: len(spawn.calls) == 1)
        assert [child.launch.site for child in spawn.children] == [f"{tmp_path}/state/functions/a/site"]

    lived(test, tmp_path, spawn, FUNCTION.format(name="a") + 'requirements = "r.txt"\n')


def test_a_function_may_invoke_those_that_it_is_granted_and_no_others(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> list[FromWorker] | FromWorker:
        if call.topic.startswith("a/"):
            return [
                Invoke(1, call.id, "b", b"good"),
                Invoke(2, call.id, "b", b"bad"),
                Invoke(3, call.id, "c", b""),
                Invoke(4, call.id, "none", b""),
                Shadow(5, call.id, "get"),
                Shadow(6, call.id, "get", "other"),
                Done(call.id),
            ]
        return failing(call) if call.payload == b"bad" else Done(call.id, b"answer")

    spawn = FakeSpawn(script)
    text = (
        FUNCTION.format(name="a").replace('to = ["broker"]', 'to = ["broker"]\ninvoke = ["b"]')
        + FUNCTION.format(name="b")
        + FUNCTION.format(name="c")
    ).replace('publish = ["out/#"]', 'publish = ["out/#", "$aws/things/g/shadow/get"]')

    async def test(house: House) -> None:
        house.send("a/x", b"go")
        await house.until(lambda: len(spawn.replies) == 6)
        found = {reply.id: reply for reply in spawn.replies if isinstance(reply, wire.Reply)}
        assert (found[1].ok, found[1].payload) == (True, b"answer")
        assert (found[2].ok, found[2].error) == (False, "ValueError")
        assert [found[id_].error for id_ in (3, 4, 5, 6)] == ["denied", "denied", "unavailable", "denied"]

    lived(test, tmp_path, spawn, text)


def test_who_invokes_or_asks_for_a_shadow_is_told_of_silence_while_its_own_time_lasts(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: [Invoke(1, call.id, "b")] if call.topic == "a/x" else None)
    text = FUNCTION.format(name="a") + 'invoke = ["b"]\ntimeout_s = 1\n' + FUNCTION.format(name="b")

    async def test(house: House) -> None:
        house.send("a/x", b"go")
        await house.until(lambda: bool(spawn.replies))
        (reply,) = spawn.replies
        assert isinstance(reply, wire.Reply)
        assert (reply.ok, reply.error, reply.message) == (False, "timeout", "'b' gave no answer within 0.5 s")
        assert house.functions.show("a").timeouts == 0

    lived(test, tmp_path, spawn, text)
    assert [patience_s(left) for left in (10.0, 1.0, 0.0, math.inf)] == [9.0, 0.5, 0.0, math.inf]


def test_an_invocation_that_nobody_waits_for_is_never_begun(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: StartFailed("ImportError")

    async def test(house: House) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await house.functions.invoke("a", "a/x", b"1")
        spawn.answer = lambda launch: Ready(takes_all=True)
        await house.ready("a")
        assert (await house.functions.invoke("a", "a/x", b"2"))["ok"]
        assert spawn.payloads() == [b"2"]

    lived(test, tmp_path, spawn)


def test_what_is_wrong_with_the_files_at_the_start_is_a_configuration_error(tmp_path: Path) -> None:
    for number, more in enumerate(('file = "none.py"', 'file = "a.py"\nsecrets = { k = "none" }')):
        (tmp_path / "a.py").write_text("")
        text = f'[[function]]\nname = "f{number}"\n{more}\n'
        with pytest.raises(ConfigError, match=r"function\[1\]: .*No such file"):
            House(tmp_path, text, FakeSpawn())


def test_a_request_of_the_control_socket_carries_a_large_event(tmp_path: Path) -> None:
    """Through the real gateway's socket, with no function: the answer names what there is."""
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nname = "g"\ndata_dir = "state"\n')
    event = tmp_path / "event"
    event.write_bytes(bytes(128 * 1024))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "edge.cli"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([*command, "run", "--config", str(file)], env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"gateway_started" not in process.stderr.readline():
            pass
        done = subprocess.run(
            [*command, "invoke", "f", "--event", str(event), "--config", str(file)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        process.terminate()
        process.communicate(timeout=30)
    assert done.returncode == 2
    assert "no_such_function" in done.stderr


def test_a_function_that_cannot_be_started_whatever_the_reason_ends_nothing_else(tmp_path: Path) -> None:
    class Broken(FakeSpawn):
        async def __call__(self, launch: Launch, listener: Listener) -> FakeChild:
            if launch.settings.name == "b":
                raise ValueError("embedded null byte")
            return await super().__call__(launch, listener)

    spawn = Broken()

    async def test(house: House) -> None:
        await house.ready("a")
        await house.until(lambda: house.functions.show("b").state == "backing_off")
        assert house.functions.show("b").last_error == "ValueError: embedded null byte"
        house.send("a/x", b"1")
        await house.until(lambda: len(spawn.calls) == 1)

    lived(test, tmp_path, spawn, FUNCTION.format(name="a") + FUNCTION.format(name="b"))


def test_one_function_that_is_refused_holds_up_no_other_and_says_why(tmp_path: Path) -> None:
    class Open(FakeSpawn):
        async def __call__(self, launch: Launch, listener: Listener) -> FakeChild:
            if launch.settings.demand:
                raise NotHeld("user (it runs as the service's own user): run the gateway as root.")
            return await super().__call__(launch, listener)

    spawn = Open()

    async def test(house: House) -> None:
        await house.ready("a")
        await house.until(lambda: house.functions.show("b").state == "refused")
        assert "run the gateway as root" in house.functions.show("b").last_error
        row = await house.functions.invoke("b", "b/x", b"1")
        assert "the function is refused" in row["message"]
        house.send("a/x", b"1")
        await house.until(lambda: len(spawn.calls) == 1)

    demanding = FUNCTION.format(name="b") + 'demand = ["user"]\ntimeout_s = 0.1\n'
    lived(test, tmp_path, spawn, FUNCTION.format(name="a") + demanding)


def test_an_invocation_of_a_function_that_does_not_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.functions.functions.BEGIN_S", 0.2)
    spawn = FakeSpawn()
    spawn.answer = lambda launch: StartFailed("ImportError", "no module")

    async def test(house: House) -> None:
        row = await house.functions.invoke("a", "a/x", b"1")
        assert (row["ok"], row["error"]) == (False, "NotCalled")
        assert "ImportError: no module" in row["message"]

    lived(test, tmp_path, spawn, FUNCTION.format(name="a") + "timeout_s = 0.1\n")


def test_a_stop_does_not_wait_for_requirements(tmp_path: Path) -> None:
    begun: list[str] = []
    broken_off: list[str] = []

    class Slow(FakeSpawn):
        async def install(self, settings: FunctionSettings, folder: str) -> str:
            begun.append(settings.name)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                broken_off.append(settings.name)
                raise
            return folder

    (tmp_path / "r.txt").write_text("")

    async def test(house: House) -> None:
        await house.until(lambda: bool(begun))
        assert house.functions.show("a").state == "installing"

    lived(test, tmp_path, Slow(), FUNCTION.format(name="a") + 'requirements = "r.txt"\n')
    assert broken_off == ["a"]
