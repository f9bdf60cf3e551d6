"""One call without a gateway: a worker is started from the gateway file, called once, and ended. Nothing is sent on."""

import asyncio
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import msgspec

from edge.config import Config
from edge.errors import InputRejected
from edge.functions.crew import Crew, Version
from edge.functions.grants import Denial, Grants
from edge.functions.invocation import Invocation
from edge.functions.output import Output
from edge.functions.processes import Processes
from edge.functions.sandbox import Ending, Refused
from edge.functions.slot import Slot
from edge.functions.surroundings import Answer, Surroundings
from edge.functions.versions import take_over
from edge.functions.wire import Call, Done, Failed, FromWorker, Invoke, Publish, Ready, Reply, Shadow
from edge.messages import Message, Origin
from edge.metrics import Metrics

START_S: Final = 30.0


def invoke_alone(config: Config, name: str, topic: str, payload: bytes) -> dict[str, Any]:
    """What `edge invoke --json` prints. Raises InputRejected for a name that is no function's."""
    found = [settings for settings in config.functions if settings.name == name]
    if not found:
        known = ", ".join(settings.name for settings in config.functions) or "none"
        raise InputRejected("no_such_function", f"{name!r}; there are {known}")
    settings = msgspec.structs.replace(found[0], workers=1)
    folder = tempfile.mkdtemp(prefix="edge-invoke-")
    try:
        os.chmod(folder, 0o711)  # noqa: S103 - its user goes through, and lists nothing
        launch, digest = take_over(settings, f"{folder}/{name}", config.folder)
        return asyncio.run(_invoke(config, Version(1, launch, digest), topic, payload))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _invoke(config: Config, version: Version, topic: str, payload: bytes) -> dict[str, Any]:
    async with asyncio.TaskGroup() as group:

        def create_task(coroutine: Coroutine[Any, Any, None]) -> object:
            return group.create_task(coroutine)

        around = Surroundings(
            config.gateway.name,
            Processes(create_task, config.gateway.name),
            create_task,
            _route,
            _ask,
            Metrics(),
            time.monotonic,
            region=config.cloud.aws_region if config.cloud is not None else "",
        )
        try:
            site = await around.spawn.install(version.settings, version.launch.folder)
            launch = msgspec.structs.replace(version.launch, site=site)
            call = _OneCall(msgspec.structs.replace(version, launch=launch), around, topic, payload)
            return await call.run()
        finally:
            around.spawn.close()


def _route(source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
    """Nothing goes anywhere."""


def _ask(grants: Grants, request: Shadow | Invoke, answer: Answer, left_s: float) -> None:
    answer(Reply(request.id, ok=False, error="unavailable", message="no gateway runs: only publish works"))


class _OneCall:
    """A crew of one, and its team."""

    def __init__(self, version: Version, around: Surroundings, topic: str, payload: bytes) -> None:
        self._version, self._around = version, around
        self._crew = Crew(version, around, self)
        self._crew.want = 1
        self._over = asyncio.Event()
        self._gone = asyncio.Event()
        self._invocation = Invocation(topic, payload, lambda one: self._over.set())
        self._outputs: dict[str, Output] = {}
        self._began_at = 0.0

    async def run(self) -> dict[str, Any]:
        self._crew.look()
        try:
            async with asyncio.timeout(START_S + self._version.settings.timeout_s):
                await self._over.wait()
        except TimeoutError:
            limit = f"no answer within {self._version.settings.timeout_s:g} s"
            self._invocation.failed("TimeoutError", limit, "", self._version.settings.timeout_s)
        self._crew.kill()
        await self._gone.wait()
        return self._invocation.row()

    def is_ready(self, slot: Slot, ready: Ready) -> None:
        one = self._invocation
        self._began_at = self._around.now()
        timeout_s = self._version.settings.timeout_s
        request = str(uuid.uuid4())
        call = Call(1, one.topic, one.payload, "invoke", timeout_s, context=one.context, request=request)
        self._crew.send(slot, call)
        self._crew.flush(slot)
        asyncio.get_running_loop().call_later(timeout_s + 1, self._late, slot)

    def received(self, slot: Slot, frames: list[FromWorker]) -> None:
        took = self._around.now() - self._began_at
        for frame in frames:
            match frame:
                case Done():
                    self._invocation.done(frame.result, took)
                case Failed():
                    self._invocation.failed(frame.error, frame.message, frame.traceback, took)
                case Publish():
                    self._publish(slot, frame)
                case Shadow() | Invoke():
                    if frame.id:
                        _ask(slot.grants, frame, lambda reply: self._crew.send(slot, reply), 0.0)
                case _:
                    pass
        self._crew.flush(slot)

    def printed(self, slot: Slot, pipe: str, data: bytes) -> None:
        now = self._around.now()
        for line in self._outputs.setdefault(pipe, Output(now)).feed(data, now):
            self._invocation.printed(line)

    def tried(self, slot: Slot, what: Refused, detail: str) -> None:
        """It is refused here as well; there is no status to show it."""

    def lost(self, slot: Slot, ending: Ending) -> None:
        for output in self._outputs.values():
            for line in output.finish():
                self._invocation.printed(line)
        if not self._invocation.is_over:
            started = slot.ready is not None
            error = "WorkerEnded" if started else "NotLoaded"
            self._invocation.failed(error, slot.error or slot.why or ending.detail, slot.traceback, 0.0)
        self._crew.kill()
        self._gone.set()

    def changed(self) -> None:
        """There is one call, and it goes out when the worker is ready."""

    def _late(self, slot: Slot) -> None:
        if not self._invocation.is_over:
            self._crew.break_off(slot, f"no answer within {self._version.settings.timeout_s:g} s")

    def _publish(self, slot: Slot, one: Publish) -> None:
        try:
            slot.grants.check(one.topic, one.payload)
        except Denial as denial:
            reply = Reply(one.id, ok=False, error=denial.reason, message=denial.detail)
        else:
            self._invocation.published(Message(one.topic, one.payload, one.qos, one.retain))
            reply = Reply(one.id)
        if one.id:
            self._crew.send(slot, reply)
