import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import InputRejected
from edge.functions import wire
from edge.messages import Properties, Reading
from tests.functions.workers import Worker, configure, worker


def test_decorated_handlers_are_told_and_run(tmp_path: Path) -> None:
    code = """
        from edge import every, on

        @on("dt/+/temp", "dt/+/hum")
        def double(message):
            return {"topic": message.topic, "c": message.json()["c"] * 2}

        @every("10 s")
        def tick():
            return "tick"

        @every("500 ms")
        def told(message):
            return message.kind
    """
    with worker(tmp_path, code) as one:
        assert one.ready() == wire.Ready(
            filters=("dt/+/temp", "dt/+/hum"),
            schedules=(wire.Schedule(0, "tick", 10.0), wire.Schedule(1, "told", 0.5)),
        )
        assert one.done("dt/b1/temp", b'{"c":21}') == b'{"topic":"dt/b1/temp","c":42}'
        assert one.done("", kind="schedule", schedule=0) == b"tick"
        assert one.done("", kind="schedule", schedule=1) == b"schedule"
        assert one.failed("dt/b1/light").error == "HandlerMissing"
        assert one.failed("", kind="schedule", schedule=2).error == "HandlerMissing"
        one.send(wire.Stop())
        assert one.wait() == 0


def test_a_message_tells_all_that_the_gateway_knows_of_it(tmp_path: Path) -> None:
    code = """
        from edge import on

        @on("#")
        def tell(m):
            return [m.topic, m.text, m.client, m.reading.thing, m.reading.boot, m.reading.sequence, m.time.isoformat(),
                    m.time_ms, m.attempt, m.kind, m.response_topic, m.properties.user, 0 < m.remaining_s <= 3]
    """
    with worker(tmp_path, code) as one:
        one.ready()
        told = one.done(
            "a/b",
            "é".encode(),
            kind="request",
            client="b1",
            reading=Reading("b1", 3, 7),
            time_ms=1_700_000_000_123,
            attempt=2,
            deadline_s=3.0,
            properties=Properties(response_topic="answer", user=(("k", "v"),)),
        )
        moment = "2023-11-14T22:13:20.123000+00:00"
        expected = ["a/b", "é", "b1", "b1", 3, 7, moment, 1_700_000_000_123, 2, "request", "answer", [["k", "v"]], True]
        assert json.loads(told or b"") == expected


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        ("None", None),
        ("b'\\x00\\xff'", b"\x00\xff"),
        ("bytearray(b'a')", b"a"),
        ("'text'", b"text"),
        ("''", b""),
        ("0", b"0"),
        ("False", b"false"),
        ("{'a': [1.5, None]}", b'{"a":[1.5,null]}'),
        ("float('nan')", b"null"),
        ("[type('Float64', (float,), {})(1.5), type('Text', (str,), {})('a')]", b'[1.5,"a"]'),
        ("type('Float64', (float,), {})('nan')", b"null"),
        ("{None: 1, True: 2, type('Number', (int,), {})(3): (4,)}", b'{"null":1,"true":2,"3":[4]}'),
    ],
)
def test_what_a_handler_returns_is_its_result(tmp_path: Path, returned: str, result: bytes | None) -> None:
    with worker(tmp_path, f"def handler(event, context): return {returned}", handler="handler") as one:
        assert one.ready() == wire.Ready(takes_all=True)
        assert one.done() == result


FAILING = {
    "import sys; sys.exit(3)": ("SystemExit", "the code called exit(3)"),
    "raise BaseException('all')": ("BaseException", "all"),
    "raise KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "raise GeneratorExit": ("GeneratorExit", ""),
    "raise StopIteration(1)": ("StopIteration", "1"),
    "raise ValueError('x' * 10_000_000)": ("ValueError", "x" * 4096),
    "raise ValueError('\\ud800')": ("ValueError", "\\ud800"),
    "raise type('L' * 1000, (Exception,), {})()": ("L" * 256, ""),
    "class E(Exception):\n  def __str__(self): raise SystemExit\n raise E": (
        "handler.<locals>.E",
        "its text cannot be had",
    ),
    "class E(Exception):\n  def __str__(self): return 3\n raise E": ("handler.<locals>.E", "its text cannot be had"),
    "raise MemoryError": ("MemoryError", ""),
    "return handler(event, context)": ("RecursionError", None),
    "return object()": ("PayloadInvalid", None),
    "return {1j: 2}": ("PayloadInvalid", None),
    "return {(1, 2): 3}": ("PayloadInvalid", None),
    "return b'x' * 1_048_577": ("ValueError", None),
    "return '\\ud800'": ("PayloadInvalid", None),
    "import functools; return functools.reduce(lambda a, _: [a], range(100_000), [])": ("PayloadInvalid", None),
    "a = []; a.append(a); return a": ("PayloadInvalid", None),
    "async def c(): pass\n return c()": ("TypeError", None),
    "raise ExceptionGroup('g', [ValueError(1)] * 1000)": ("ExceptionGroup", None),
}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_whatever_a_handler_does_is_answered_and_the_next_call_goes_well(tmp_path: Path, asynchronous: bool) -> None:
    word = "async " if asynchronous else ""
    for number, (body, (error, message)) in enumerate(FAILING.items()):
        if asynchronous and (body.startswith("return handler") or "StopIteration" in body):
            continue  # awaiting a coroutine is no deeper call, and Python itself turns a StopIteration
        code = f"{word}def handler(event, context):\n if event: return 'well'\n {body}\n"
        with worker(tmp_path / str(number), code, handler="handler") as one:
            assert one.ready().concurrent is asynchronous
            failed = one.failed()
            assert failed.error == error, body
            assert message is None or failed.message == message, body
            assert len(failed.traceback) <= wire.TRACEBACK_CHARACTERS_MAX
            assert one.done(payload=b"1") == b"well"


def test_a_traceback_shows_the_functions_own_lines_and_causes(tmp_path: Path) -> None:
    code = """
        def handler(event, context):
            try:
                inner()
            except KeyError as error:
                raise ValueError("outer") from error

        def inner():
            return {}["missing"]
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        trace = one.failed().traceback
        assert 'return {}["missing"]' in trace
        assert "KeyError: 'missing'" in trace
        assert "which is the cause of" in trace
        assert trace.endswith("ValueError: outer")
        assert "edge/functions" not in trace


def test_a_syntax_error_shows_its_line(tmp_path: Path) -> None:
    with worker(tmp_path, "x = 1\n    y = = 2\n") as one:
        said = one.receive()
        assert isinstance(said, wire.StartFailed)
        assert "line 2\n    y = = 2\n" in said.traceback


def test_a_wrapped_async_handler_is_awaited(tmp_path: Path) -> None:
    code = """
        import asyncio, functools
        from edge import on

        def lazily(run):
            @functools.wraps(run)
            def wrapper(message):
                return run(message)
            return wrapper

        def here(run):
            @functools.wraps(run)
            def wrapper(message):
                return "not awaited"
            return wrapper

        @on("lazily")
        @lazily
        async def first(message):
            return await asyncio.sleep(0, "lazily")

        @on("here")
        @here
        async def second(message): ...

        on("partial")(functools.partial(first))
    """
    with worker(tmp_path, code) as one:
        assert one.ready().concurrent
        assert one.done("lazily") == b"lazily"
        assert one.done("partial") == b"lazily"
        assert one.done("here") == b"not awaited"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import sys; sys.exit(1)", "SystemExit", "exit(1)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("1 +", "SyntaxError", "line 1"),
        ("import not_there", "ModuleNotFoundError", "not_there"),
        ("x = 1", "ImportError", "neither @on nor @every"),
        ("from edge import on\n@on\ndef f(m): pass", "TypeError", "@on takes topic filters"),
        ("from edge import every\n@every\ndef f(m): pass", "TypeError", "@every takes an interval"),
        ("from edge import every\n@every('10 parsecs')\ndef f(m): pass", "ValueError", "10 parsecs"),
        ("from edge import on\n@on('a/#/b')\ndef f(m): pass", "ValueError", "'#' the last"),
        ("from edge import on\n@on('a')\ndef f(a, b): pass", "TypeError", "takes a message or nothing"),
        ("from edge import on\nfor n in range(1001): on(f't/{n}')(lambda: 1)", "ImportError", "more than 1000"),
        ("from edge import log_", "ImportError", "log_"),
        ("import greengrasssdk.stream_manager", "ImportError", "is not among what EdgeLoop gives"),
    ],
)
def test_code_that_cannot_be_loaded_says_why(tmp_path: Path, code: str, error: str, words: str) -> None:
    with worker(tmp_path, code) as one:
        said = one.receive()
        assert isinstance(said, wire.StartFailed)
        assert said.error == error
        assert words in said.message
        assert one.wait() == 1


def test_a_handler_that_is_not_there_says_so(tmp_path: Path) -> None:
    with worker(tmp_path, "x = 1", handler="handler") as one:
        said = one.receive()
        assert isinstance(said, wire.StartFailed)
        assert said.message == "made has no function 'handler'"
    decorated = "from edge import on\n@on('a')\ndef handler(event, context=None): pass"
    with worker(tmp_path, decorated, handler="handler") as one:
        said = one.receive()
        assert isinstance(said, wire.StartFailed)
        assert "leave one out" in said.message


def test_a_granted_publish_waits_for_nothing_and_a_refused_one_raises(tmp_path: Path) -> None:
    code = """
        from edge import RequestDenied, on, publish

        @on("in")
        def handle(message):
            publish("out/a", {"n": 1})
            publish("out/b", "text", qos=0, retain=True, content_type="text/plain", user={"k": "v"}, expiry_s=60)
            try:
                publish("elsewhere", b"x")
            except RequestDenied as error:
                return [error.error, error.message]

        @on("waits")
        def waits(message):
            publish("out/c", b"x", wait=True)
    """

    def answer(request: object) -> wire.Reply:
        assert isinstance(request, wire.Publish)
        if request.topic == "elsewhere":
            return wire.Reply(request.id, ok=False, error="denied", message="not granted")
        return wire.Reply(request.id)

    with worker(tmp_path, code, answer) as one:
        one.ready()
        assert one.done("in", id=9) == b'["denied","not granted"]'
        assert one.done("waits", id=10) is None
        kept = wire.PublishProperties(content_type="text/plain", user=(("k", "v"),), expiry_s=60)
        assert one.requests == [
            wire.Publish(0, 9, "out/a", b'{"n":1}'),
            wire.Publish(0, 9, "out/b", b"text", 0, True, kept),
            wire.Publish(1, 9, "elsewhere", b"x"),
            wire.Publish(2, 10, "out/c", b"x"),
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        "''",
        "'a/+'",
        "'out/\\ud800'",
        "'x' * 65_536",
        "3",
        "'out/a', object()",
        "'out/a', b'x' * 1_048_577",
        "'out/a', qos=2",
        "'out/a', retain=1",
        "'out/a', content_type=3",
        "'out/a', content_type='a' * 20_000",
        "'out/a', content_type='\\ud800'",
        "'out/a', expiry_s=-1",
        "'out/a', response_topic='#'",
        "'out/a', user={1: 2}",
    ],
)
def test_a_wrong_publish_raises_in_the_handler_and_sends_nothing(tmp_path: Path, arguments: str) -> None:
    code = f"""
        from edge import on, publish

        @on("#")
        def handle():
            try:
                publish({arguments})
            except ValueError:
                return "raised"
    """
    with worker(tmp_path, code) as one:
        one.ready()
        assert one.done() == b"raised"
        assert one.requests == []


def test_requests_work_while_the_code_is_loaded_and_from_its_threads(tmp_path: Path) -> None:
    code = """
        import threading
        from edge import on, publish, shadow

        first = shadow.get()["n"]
        go = threading.Event()

        def run():
            go.wait()
            for n in range(50):
                publish("out/thread", str(shadow.get()["n"]), wait=True)
            go.clear()
            while True:
                publish("out/ever", b"")
                go.wait(0.01)

        threading.Thread(target=run).start()

        @on("#")
        def handle():
            go.set()
            return first + sum(shadow.get()["n"] for _ in range(50))
    """

    def answer(request: object) -> wire.Reply:
        assert isinstance(request, wire.Publish | wire.Shadow)
        return wire.Reply(request.id, payload=b'{"n":2}')

    with worker(tmp_path, code, answer) as one:
        one.ready()
        assert one.done(id=5) == b"102"
        one.send(*(wire.Call(id, "t", b"") for id in range(6, 20)))
        assert all(isinstance(one.receive(), wire.Done) for _ in range(14))
        while not any(isinstance(request, wire.Publish) and request.topic == "out/ever" for request in one.requests):
            one.request()
        threads = [r for r in one.requests if isinstance(r, wire.Publish) and r.topic == "out/thread"]
        assert len(threads) == 50
        assert {request.call for request in threads} == {0}
        one.send(wire.Stop())
        assert one.wait() == 0


def test_shadows_and_other_functions_are_asked_for(tmp_path: Path) -> None:
    code = """
        from edge import RequestFailed, invoke, on, shadow

        @on("#")
        def handle():
            shadow.get("config", thing="b1")
            shadow.update(reported={"a": 1, "b": None}, version=3)
            shadow.update(desired=None)
            shadow.delete("config")
            invoke("other", {"x": 1}, wait=False)
            try:
                return invoke("other", "in")
            except RequestFailed as error:
                return error.error
    """

    def answer(request: object) -> wire.Reply:
        assert isinstance(request, wire.Shadow | wire.Invoke)
        ok = isinstance(request, wire.Shadow)
        return wire.Reply(request.id, ok=ok, payload=b"{}", error="" if ok else "not_found")

    with worker(tmp_path, code, answer) as one:
        one.ready()
        assert one.done(id=4) == b"not_found"
        assert one.requests == [
            wire.Shadow(1, 4, "get", "b1", "config"),
            wire.Shadow(2, 4, "update", payload=b'{"state":{"reported":{"a":1,"b":null}},"version":3}'),
            wire.Shadow(3, 4, "update", payload=b'{"state":{"desired":null}}'),
            wire.Shadow(4, 4, "delete", "", "config"),
            wire.Invoke(0, 4, "other", b'{"x":1}'),
            wire.Invoke(5, 4, "other", b"in"),
        ]


def test_async_handlers_run_side_by_side_with_their_own_calls(tmp_path: Path) -> None:
    code = """
        import asyncio
        from edge import RequestDenied, apublish, on, publish, shadow

        met = []
        both = asyncio.Event()

        @on("meet")
        async def meet(message):
            met.append(message)
            if len(met) == 2:
                both.set()
            await both.wait()
            await asyncio.sleep(0)
            publish("out/quick", message.payload)
            await apublish("out/slow", message.payload)
            return (await shadow.aget())["n"]

        @on("sync")
        def sync():
            return shadow.get()["n"]

        @on("block")
        async def block():
            shadow.get()

        @on("beyond")
        async def beyond():
            publish("elsewhere/x", b"1")

        @on("caught")
        async def caught():
            try:
                publish("elsewhere/x", b"1")
            except RequestDenied as denied:
                return denied.error
    """

    def answer(request: object) -> wire.Reply:
        assert isinstance(request, wire.Publish | wire.Shadow)
        return wire.Reply(request.id, payload=b'{"n":2}')

    with worker(tmp_path, code, answer) as one:
        assert one.ready().concurrent
        one.send(wire.Call(7, "meet", b"7"), wire.Call(8, "meet", b"8"))
        assert {one.receive(), one.receive()} == {wire.Done(7, b"2"), wire.Done(8, b"2")}
        published = {(r.call, r.topic, r.payload) for r in one.requests if isinstance(r, wire.Publish)}
        assert published == {(n, f"out/{way}", b"%d" % n) for n in (7, 8) for way in ("quick", "slow")}
        assert one.done("sync") == b"2"
        assert "await the function" in one.failed("block").message
        assert one.failed("beyond").error == "RequestDenied"
        assert one.done("caught") == b"denied"
        denied = [r.id for r in one.requests if isinstance(r, wire.Publish) and r.topic == "elsewhere/x"]
        assert len(set(denied)) == 2
        assert all(denied)
        one.send(wire.Stop())
        assert one.wait() == 0


def test_an_async_call_past_its_deadline_is_cancelled_alone(tmp_path: Path) -> None:
    code = """
        import asyncio
        from edge import on

        @on("long")
        async def long():
            await asyncio.sleep(1000)

        @on("own")
        async def own():
            raise TimeoutError("own")

        @on("quick")
        async def quick():
            return "quick"
    """
    with worker(tmp_path, code) as one:
        one.ready()
        one.send(wire.Call(1, "long", b"", deadline_s=0.2), wire.Call(2, "quick", b""))
        assert one.receive() == wire.Done(2, b"quick")
        said = one.receive()
        assert isinstance(said, wire.Failed)
        assert (said.id, said.error, said.message) == (1, "TimeoutError", "took longer than 0.2 s")
        assert one.failed("own").message == "own"


def test_sync_calls_that_take_turns_have_each_its_own_time_and_say_when_they_begin(tmp_path: Path) -> None:
    code = """
        import time
        from edge import every, on

        @on("#")
        def work(message):
            began = message.deadline - 5
            time.sleep(0.05)
            return [began, time.monotonic()]

        @every("1 h")
        async def tick(): ...
    """
    with worker(tmp_path, code) as one:
        one.ready()
        one.send(*(wire.Call(id_, "t", b"", deadline_s=5.0) for id_ in (1, 2, 3)))
        said = [one.receive() for _ in range(3)]
        times = [moment for done in said if isinstance(done, wire.Done) for moment in json.loads(done.result or b"")]
        assert len(times) == 6
        assert times == sorted(times)
        assert one.begun[-2:] == [2, 3]


def test_async_calls_say_when_they_begin_behind_one_that_computes_and_when_they_last(tmp_path: Path) -> None:
    code = """
        import asyncio, time
        from edge import on

        @on("compute")
        async def compute(message):
            time.sleep(0.05)

        @on("last")
        async def last(message):
            await asyncio.sleep(0.6)

        started = []

        @on("turn")
        async def turn():
            started.append(None)
            await asyncio.sleep(0)
            return len(started)
    """
    with worker(tmp_path, code) as one:
        one.ready()
        one.send(*(wire.Call(id_, "compute", b"") for id_ in (1, 2)))
        assert [one.receive(), one.receive()] == [wire.Done(1), wire.Done(2)]
        assert one.begun[-1:] == [2]
        one.send(wire.Call(3, "compute", b""), wire.Call(4, "last", b""))
        one.send(wire.Call(5, "last", b""))
        assert [one.receive().id for _ in range(3)] == [3, 4, 5]  # type: ignore[union-attr]
        one.send(*(wire.Call(id_, "turn", b"") for id_ in range(6, 16)))
        first = one.receive()
        assert isinstance(first, wire.Done)
        assert int(first.result or b"") < 10, "others go on while calls begin"
        assert {2, 4, 5} <= set(one.begun)
        assert len(set(one.begun)) == len(one.begun), "each once"


def test_sync_and_async_handlers_of_one_topic_share_a_call(tmp_path: Path) -> None:
    code = """
        import asyncio, sys
        from edge import apublish, on, publish

        async def later(value):
            await apublish("out/later", b"")
            return value

        @on("both", "exit")
        def first(message):
            publish("out/first", b"")

        @on("both", "exit")
        async def second(message):
            await later(None)
            if message.topic == "exit":
                sys.exit(3)
            return "second"

        @on("both", "awaitable")
        def third(message):
            return later("third")
    """
    with worker(tmp_path, code) as one:
        one.ready()
        assert one.done("both") == b"second"
        assert [r.call for r in one.requests if isinstance(r, wire.Publish)] == [1, 1, 1]
        assert one.done("awaitable") == b"third"
        assert one.failed("exit").error == "SystemExit"
        assert one.done("both") == b"second"


def test_stop_lets_async_calls_end(tmp_path: Path) -> None:
    code = """
        import asyncio
        from edge import on, shadow

        @on("#")
        async def handle():
            await shadow.aget()
            return "ended"
    """
    with worker(tmp_path, code, lambda request: wire.Reply(request.id, payload=b"{}")) as one:
        one.ready()
        one.send(wire.Call(1, "t", b""), wire.Stop())
        assert one.receive() == wire.Done(1, b"ended")
        assert one.wait() == 0


@pytest.mark.parametrize("word", ["", "async "])
def test_the_worker_ends_when_the_gateway_goes(tmp_path: Path, word: str) -> None:
    with worker(tmp_path, f"{word}def handler(event, context): pass", handler="handler") as one:
        one.ready()
        one.socket.close()
        assert one.wait() == 0


def test_threads_that_never_end_keep_no_worker_alive(tmp_path: Path) -> None:
    code = """
        import atexit, threading
        threading.Thread(target=threading.Event().wait).start()
        atexit.register(print, "said goodbye")

        def handler(event, context): pass
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        one.send(wire.Stop())
        assert one.wait() == 0
        assert "said goodbye" in one.output()


def test_ctrl_c_is_the_gateways(tmp_path: Path) -> None:
    with worker(tmp_path, "def handler(event, context): return 1", handler="handler") as one:
        one.ready()
        one.process.send_signal(signal.SIGINT)
        assert one.done() == b"1"


def test_what_is_printed_is_seen_at_once_whatever_it_is(tmp_path: Path) -> None:
    code = r"""
        import sys
        def handler(event, context):
            print("a line")
            print("\ud800 é", file=sys.stderr)
            print("half a line", end="")
            if event:
                sys.stdout.close()
                sys.stderr = None
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        one.done()
        for line in ("a line\n", "\\ud800 é\n", "half a line"):
            assert line in one.output()
        assert one.done(payload=b"1") is None
        assert one.failed().error == "ValueError"  # its stdout is closed: its own affair


def test_a_fork_of_the_worker_answers_nothing(tmp_path: Path) -> None:
    code = """
        import os, sys
        from edge import RequestFailed, publish

        def handler(event, context):
            if event:
                return "well"
            if os.fork() == 0:
                try:
                    publish("out/a", b"")
                except RequestFailed as error:
                    print(error.error)
                return "child"
            os.wait()
            return "parent"
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        assert one.done() == b"parent"
        assert one.done(payload=b"1") == b"well"
        assert one.requests == []
        assert "unavailable" in one.output()


@pytest.mark.parametrize(
    "body",
    [
        "os.closerange(3, 100)",
        "[os.write(fd, b'\\xff' * 100) for fd in sockets]",
        "[os.dup2(0, fd) for fd in sockets]",
        "os._exit(3)",
        "os.kill(os.getpid(), 9)",
        "os.abort()",
    ],
)
def test_a_handler_that_breaks_its_worker_ends_or_damages_its_own_stream_alone(tmp_path: Path, body: str) -> None:
    code = f"""
        import os, stat, resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        def handler(event, context):
            sockets = [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{{fd}}")
                       and stat.S_ISSOCK(os.stat(f"/proc/self/fd/{{fd}}").st_mode)]
            {body}
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        one.send(wire.Call(1, "t", b""))
        reader, ended = wire.from_worker(), False
        while not ended:
            data = one.socket.recv(65536)
            try:
                reader.feed(data)
                ended = not data
            except InputRejected as rejected:
                assert rejected.reason in {"frame_length", "frame_damaged"}
                ended = True


def test_a_handler_without_memory_fails_and_the_next_call_goes_well(tmp_path: Path) -> None:
    code = """
        import resource

        def handler(event, context):
            if event:
                return "well"
            size = int(open("/proc/self/statm").read().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_AS, (size + 20_000_000, resource.RLIM_INFINITY))
            kept = []
            while True:
                kept.append(bytearray(1_000_000))
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        assert one.failed().error == "MemoryError"
        assert one.done(payload=b"1") == b"well"


def test_programs_that_the_code_starts_do_not_get_the_socket(tmp_path: Path) -> None:
    code = """
        import os, subprocess, sys
        def handler(event, context):
            listing = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False)
            return {"sockets": listing.stdout.count("socket:"), "variable": os.environ.get("EDGE_FUNCTION_FD")}
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        assert one.done() == b'{"sockets":0,"variable":null}'


def test_a_folder_has_its_modules_and_its_requirements_before_all_others(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/needed.py").write_text("NAME = 'from site'")
    (tmp_path / "code/pack").mkdir(parents=True)
    (tmp_path / "code/pack/__init__.py").write_text("")
    (tmp_path / "code/pack/deep.py").write_text("from beside import two\ndef run(event, context): return two()")
    (tmp_path / "code/beside.py").write_text("import needed\ndef two(): return needed.NAME")
    code = "import beside\ndef lambda_handler(event, context): return beside.two()"
    settings = configure(tmp_path / "code", code, file="lambda_function.py")
    for handler in ("lambda_function.lambda_handler", "lambda_handler", "pack.deep.run"):
        folder = wire.Configure("f", "g", str(tmp_path / "code"), handler, site=str(tmp_path / "site"))
        with Worker(folder) as one:
            one.ready()
            assert one.done() == b"from site"
    with Worker(wire.Configure("f", "g", settings.file, "pack.deep.run", site=str(tmp_path / "site"))) as one:
        one.ready()
        assert one.done() == b"from site"


@pytest.mark.parametrize("word", ["", "async "])
@pytest.mark.parametrize("name", ["queue.py", "logging.py", "asyncio.py", "edge.py", "my-function.v2.py"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str, word: str) -> None:
    code = f"""
        from dataclasses import dataclass
        from edge import on

        @dataclass
        class Answer:
            n: int

        @on("#")
        {word}def handle(message):
            return Answer(1)
    """
    with worker(tmp_path, code, file=name) as one:
        one.ready()
        assert one.done() == b'{"n":1}'


def test_the_environment_is_lambdas_and_the_granted(tmp_path: Path) -> None:
    code = """
        import os
        NAMES = ["AWS_LAMBDA_FUNCTION_NAME", "AWS_IOT_THING_NAME", "LAMBDA_TASK_ROOT", "COLOUR", "_HANDLER"]
        def handler(event, context):
            assert os.environ["AWS_LAMBDA_LOG_GROUP_NAME"] == context.log_group_name == "/aws/lambda/made"
            assert os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] == context.log_stream_name
            return [os.environ.get(name) for name in NAMES]
    """
    with worker(tmp_path, code, handler="handler", environment={"COLOUR": "red"}) as one:
        one.ready()
        assert json.loads(one.done() or b"") == ["made", "gateway-1", str(tmp_path), "red", "handler"]


def test_the_variables_of_greengrass_v1_are_there_with_the_forms_they_had(tmp_path: Path) -> None:
    code = """
        import os
        GROUP_ID, ARN = os.environ["GROUP_ID"], os.environ["AWS_IOT_THING_ARN"]
        NAMES = ["AWS_GREENGRASS_GROUP_NAME", "MY_FUNCTION_ARN", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_REGION"]
        def handler(event, context): return [GROUP_ID, ARN, *(os.environ.get(name) for name in NAMES)]
    """
    group = "2f1c4f6e-0000-5000-8000-000000000000"
    size = 64 * 1_048_576
    with worker(tmp_path, code, handler="handler", group=group, region="eu-west-1", memory_bytes_max=size) as one:
        one.ready()
        assert json.loads(one.done() or b"") == [
            group,
            "arn:aws:iot:eu-west-1:000000000000:thing/gateway-1",
            "gateway-1",
            "arn:aws:lambda:local:000000000000:function:made",
            "64",
            "eu-west-1",
        ]
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        arn, region = json.loads(one.done() or b"")[1::4]
        assert (arn, region) == ("arn:aws:iot:local:000000000000:thing/gateway-1", None)


def test_secrets_are_those_granted_and_as_they_are_now(tmp_path: Path) -> None:
    code = """
        from edge import RequestFailed, secret
        def handler(event, context):
            try:
                return secret(event)
            except RequestFailed as error:
                return error.error
    """
    (tmp_path / "key").write_text("first\n")
    secrets = {"KEY": str(tmp_path / "key"), "GONE": str(tmp_path / "gone")}
    with worker(tmp_path, code, handler="handler", secrets=secrets) as one:
        one.ready()
        assert one.done(payload=b'"KEY"') == b"first"
        (tmp_path / "key").write_text("second")
        assert one.done(payload=b'"KEY"') == b"second"
        assert one.done(payload=b'"OTHER"') == b"denied"
        assert one.done(payload=b'"GONE"') == b"unavailable"


def test_a_damaged_stream_from_the_gateway_ends_the_worker(tmp_path: Path) -> None:
    with worker(tmp_path, "def handler(event, context): pass", handler="handler") as one:
        one.ready()
        one.socket.sendall(b"\xff" * 100)
        assert one.wait() == 0


LOADED = """
    import sys
    from edge import on
    {first}

    @on("t")
    async def tell(message):
        import asyncio

        before = "ssl" in sys.modules
        import ssl

        reader, writer = await asyncio.open_unix_connection(sock=PAIR[0])
        PAIR[1].sendall(ssl.create_default_context().__class__.__name__.encode())
        said = (await reader.readexactly(10)).decode()
        writer.close()
        return [before, asyncio.base_events.ssl is None, said]

    import socket
    PAIR = socket.socketpair()
"""


@pytest.mark.parametrize(
    ("network", "first", "answer"),
    [
        (False, "", b'[false,true,"SSLContext"]'),
        (False, "import asyncio", b'[false,true,"SSLContext"]'),
        (False, "import ssl, asyncio", b'[true,false,"SSLContext"]'),
        (True, "import asyncio", b'[true,false,"SSLContext"]'),
    ],
)
def test_without_network_asyncio_does_without_tls_and_the_code_has_it_all_the_same(
    tmp_path: Path, *, network: bool, first: str, answer: bytes
) -> None:
    with worker(tmp_path, LOADED.format(first=first), network=network) as one:
        assert one.ready().concurrent
        assert one.done() == answer


def test_a_worker_with_a_simple_handler_loads_no_asyncio_logging_or_typing_heavy_modules(tmp_path: Path) -> None:
    code = """
        import sys
        from edge import on, publish
        HEAVY = {"asyncio", "logging", "socket", "subprocess", "dataclasses", "threading", "json", "traceback"}

        @on("#")
        def handle(message):
            return sorted((HEAVY & sys.modules.keys()) | {name for name in sys.modules if name.startswith("edge.")})
    """
    with worker(tmp_path, code) as one:
        one.ready()
        loaded = json.loads(one.done() or b"")
        assert all(name.startswith(("edge.functions", "edge.errors", "edge.messages")) for name in loaded)


def test_importing_edge_is_free() -> None:
    code = "import sys; before = set(sys.modules); import edge; print(sorted(set(sys.modules) - before))"
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['edge']"
