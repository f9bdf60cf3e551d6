"""Stand-ins at the pool's seams: processes that are Python functions in this process, a router that remembers."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge.config_functions import FunctionSettings
from edge.errors import EdgeLoopError
from edge.functions import wire
from edge.functions.child import Launch, Listener
from edge.functions.crew import Version
from edge.functions.grants import Grants
from edge.functions.inbox import Inbox, inbox_settings
from edge.functions.pool import Pool
from edge.functions.sandbox import Ending
from edge.functions.surroundings import Answer, Surroundings
from edge.functions.wire import Call, Configure, Done, Failed, FromWorker, Publish, Ready, Stop, frame, to_worker
from edge.messages import Message, Origin, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.opening import open_stream
from edge.outbox.worker import Done as Told
from edge.outbox.worker import Work
from tests.clock import run_virtual

Said = Sequence[FromWorker] | FromWorker | None
Script = Callable[["FakeChild", Call], Said]


class Crash(Exception):
    """Raised by a script: the process ends here."""


class FakeChild:
    """Runs the script for each call, in order; what it returns is what a worker says."""

    contained_by = ("a fake",)
    paths = (("/granted", "read"),)
    sockets_told = False

    def __init__(self, spawn: "FakeSpawn", launch: Launch, listener: Listener) -> None:
        self.pid = len(spawn.children) + 1
        self.launch, self.calls = launch, list[Call]()
        self.reached: dict[str, str] = {}
        self.cpu_s = 0.0
        self.unsent = 0
        self.rests: list[float] = []
        self.is_paused = self.has_ended = self.has_stopped = False
        self._spawn, self._listener = spawn, listener
        self._said = b""
        self._reader = to_worker()
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        for struct in self._reader.feed(data):
            self._loop.call_soon(self._take, struct)

    def say(self, *frames: FromWorker) -> None:
        """It is heard as soon as it is read from."""
        self._said += b"".join(map(frame, frames))
        if not self.has_ended and not self.is_paused:
            said, self._said = self._said, b""
            self._listener.received(said)

    def print(self, data: bytes) -> None:
        self._listener.printed("stdout", data)

    def end(self, ending: Ending) -> None:
        """What it said last is heard all the same."""
        if not self.has_ended:
            self.is_paused = False
            self.say()
            self.has_ended = True
            self._loop.call_soon(self._listener.ended, ending)

    def kill(self) -> None:
        self.end(Ending("killed", 9, "ended by the gateway"))

    def finish(self) -> None:
        """Nothing is left to write."""

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        if self._said:
            self._loop.call_soon(self.say)

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)

    def memory_bytes(self) -> int:
        return 10_000_000

    def _take(self, struct: wire.ToWorker) -> None:
        if self.has_ended:
            return
        match struct:
            case Configure():
                answer = self._spawn.answer(self.launch)
                self.say(answer)
                if not isinstance(answer, Ready):
                    self.end(Ending("exited", 1, "exit status 1"))
            case Stop():
                self.has_stopped = True
                self.end(Ending("exited", 0, "exit status 0"))
            case Call():
                self.calls.append(struct)
                self._spawn.calls.append(struct)
                try:
                    said = self._spawn.script(self, struct)
                except Crash as crash:
                    self.end(Ending("signal", 11, str(crash) or "SIGSEGV"))
                    return
                if said is not None:
                    self.say(*(said if isinstance(said, Sequence) else (said,)))
            case _:
                self._spawn.replies.append(struct)


class FakeSpawn:
    """script: what a call does; may be changed. answer: what a process says when it is configured."""

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = script or (lambda child, call: Done(call.id))
        self.answer: Callable[[Launch], FromWorker] = lambda launch: Ready(takes_all=True)
        self.children: list[FakeChild] = []
        self.calls: list[Call] = []
        self.replies: list[wire.ToWorker] = []
        self.failure: EdgeLoopError | None = None

    async def __call__(self, launch: Launch, listener: Listener) -> FakeChild:
        if self.failure is not None:
            raise self.failure
        child = FakeChild(self, launch, listener)
        self.children.append(child)
        return child

    async def install(self, settings: FunctionSettings, folder: str) -> str:
        return f"{folder}/site" if settings.requirements else ""

    def close(self) -> None:
        assert not self.running

    @property
    def running(self) -> list[FakeChild]:
        return [child for child in self.children if not child.has_ended]

    def payloads(self) -> list[bytes]:
        return [call.payload for call in self.calls]


class Receiver:
    """A target of the router, or a dead-letter stream. answers: None keeps all open."""

    def __init__(self, answers: Outcome | None = Outcome.TAKEN) -> None:
        self.answers = answers
        self.taken: list[Message] = []
        self.open: list[tuple[Message, Origin]] = []

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        if self.answers is None:
            self.open += [(message, origin) for message in messages]
            return
        if self.answers is Outcome.TAKEN:
            self.taken += messages
        origin.settled([message.receipt for message in messages if message.qos], self.answers)

    def route(self, source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        self.send(messages, origin)

    def settle(self, outcome: Outcome) -> None:
        some, self.open = self.open, []
        for message, origin in some:
            if outcome is Outcome.TAKEN:
                self.taken.append(message)
            origin.settled([message.receipt], outcome)


class Source:
    """An origin that writes down how everything ended."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        for receipt in receipts:
            assert receipt not in self.outcomes, f"{receipt} settled twice"
            self.outcomes[receipt] = outcome


class _Inline:
    """Commits on the loop's own thread, so that time may be virtual."""

    def submit(self, work: Work, done: Told) -> None:
        try:
            work()
        except OSError as error:
            asyncio.get_running_loop().call_soon(done, error)
        else:
            asyncio.get_running_loop().call_soon(done, None)

    def stop(self) -> None:
        """Nothing runs."""


class Rig:
    """One life of one function; another Rig on the same folder is the next. Time is the loop's."""

    def __init__(self, folder: Path, spawn: FakeSpawn, *, letters: Receiver | None = None, **settings: Any) -> None:
        self.settings = function(**settings)
        self.spawn, self.out, self.letters, self.source = spawn, Receiver(), letters, Source()
        self.metrics = Metrics()
        self.folder = folder
        self.askers: list[Grants] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._receipt = 0
        stream = open_stream(
            inbox_settings(self.settings),
            str(folder / "inbox"),
            "g/function:f",
            self.metrics,
            file="gateway.toml",
            now=self.now,
            unix_time=lambda: 1_700_000_000.0 + self.now(),
        )
        stream._worker = _Inline()  # type: ignore[assignment]
        self.inbox = Inbox(stream, self.metrics, self.now)
        around = Surroundings("g", spawn, self._create_task, self._route, self._ask, self.metrics, self.now)
        self.pool = Pool(self.version(1), self.inbox, letters, around)
        self.pool.start()

    def version(self, number: int, digest: str = "", **settings: Any) -> Version:
        changed = msgspec.structs.replace(self.settings, **settings)
        return Version(number, Launch(changed, "code.py", str(self.folder)), digest or f"v{number}")

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def _create_task(self, coroutine: Any) -> object:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _route(self, source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        assert source == "function:f"
        self.out.send(messages, origin)

    def _ask(self, grants: Grants, request: wire.Shadow | wire.Invoke, answer: Answer, left_s: float) -> None:
        self.askers.append(grants)
        answer(wire.Reply(request.id, payload=b"{}"))

    def send(self, *payloads: bytes, topic: str = "t", **fields: Any) -> None:
        messages = []
        for payload in payloads:
            self._receipt += 1
            messages.append(Message(topic, payload, qos=1, receipt=self._receipt, **fields))
        self.inbox.stream.send(messages, self.source)

    def reading(self, sequence: int, payload: bytes, topic: str = "t") -> None:
        self.send(payload, topic=topic, reading=Reading("b1", 1, sequence))

    async def until(self, true: Callable[[], bool], seconds: float = 600.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.005)

    async def done(self) -> None:
        """Until the inbox is empty."""
        await asyncio.sleep(0.05)
        await self.until(lambda: not self.inbox.stream.is_busy and not self.inbox.backlog)

    async def stop(self) -> None:
        await self.pool.stop(5.0)

    def kill(self) -> None:
        """As kill -9 of the gateway."""
        for child in self.spawn.running:
            child.has_ended = True
        self.pool.abandon()

    def count(self, name: str) -> float:
        return self.metrics.counter(f"function_{name}", function="f").value


def function(**settings: Any) -> FunctionSettings:
    given = {"name": "f", "file": "code.py", "publish": ["out/#"], "bytes_max": 2 << 20, **settings}
    return msgspec.convert(given, FunctionSettings)


def failing(call: Call, error: str = "ValueError") -> Failed:
    return Failed(call.id, error, "no good", "Traceback")


def lived(test: Callable[[Rig], Coroutine[Any, Any, None]], folder: Path, spawn: FakeSpawn, **options: Any) -> Rig:
    """Run a test with a rig, which is stopped at its end."""

    async def run() -> Rig:
        rig = Rig(folder, spawn, **options)
        await test(rig)
        await rig.stop()
        assert not spawn.running
        return rig

    return run_virtual(run())


def publishing(child: FakeChild, call: Call) -> Said:
    return [Publish(0, call.id, f"out/{call.topic}", call.payload), Done(call.id)]


def random_bytes(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)
