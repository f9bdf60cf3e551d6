"""A gateway for the unit tests of functions, in memory: no broker, no process, no clock.

    from edge.functions.testing import Gateway

    def test_a_hot_boiler_raises_an_alarm():
        with Gateway("functions/warn.py", publish=["alarm/#"]) as gateway:
            gateway.send("dt/b1/temp", {"c": 99})
            assert gateway.published == [("alarm/hot", {"topic": "dt/b1/temp"})]

The file is loaded as a worker loads it; what it does outside its handlers is done at each `with`. Handlers may also be
imported and called by themselves, within `with Gateway():` if they publish. Async handlers run to their end in `send`.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from edge.functions import api, lambda_, wire
from edge.functions.greengrass_import import Finder
from edge.functions.handlers import Registry, is_async, matches
from edge.functions.program import Program, load
from edge.messages import Properties


class Gateway:
    """file, handler, publish, environment: as in the gateway file. secrets: name to value. shadows: documents by name,
    the classic one's is empty. invoked: what other functions return, by name, a value or a function of the payload.

    published: topic and value in order (bytes where it is no JSON). shadows: as they are by then."""

    def __init__(
        self,
        file: str | Path = "",
        *,
        handler: str = "",
        publish: Sequence[str] = ("#",),
        environment: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        shadows: Mapping[str, Any] | None = None,
        invoked: Mapping[str, Any] | None = None,
    ) -> None:
        self.published: list[tuple[str, Any]] = []
        self.shadows: dict[str, Any] = {name: _copy(document) for name, document in (shadows or {}).items()}
        self._secrets = dict(secrets or {})
        self._invoked = dict(invoked or {})
        self.settings = wire.Configure(
            "test",
            "gateway",
            str(Path(file).resolve()) if file else "",
            handler,
            publish=tuple(publish),
            environment=dict(environment or {}),
            group="00000000-0000-4000-8000-000000000000",
        )
        self._program: Program | None = None
        self._calls = 0

    def send(
        self,
        topic: str,
        payload: Any = b"",
        *,
        client: str = "",
        kind: wire.Kind = "message",
        time_ms: int = 0,
        response_topic: str | None = None,
    ) -> Any:
        """Run the handlers that take the topic, as the gateway would; raises what they raise, HandlerMissing when none
        does. Returns the first result, None without one, as the receiver of an answer would get it."""
        properties = None if response_topic is None else Properties(response_topic=response_topic)
        body = api.encoded(payload)
        return self._run(wire.Call(0, topic, body, kind, client=client, time_ms=time_ms, properties=properties))

    def tick(self, name: str = "") -> Any:
        """Run an @every handler by its name, the only one if none is given; in Lambda's manner the handler."""
        assert self._program is not None, "within `with`, and with a file"
        schedules = [one for one in self._program.ready().schedules if name in {"", one.name}]
        return self._run(wire.Call(0, "", b"", "schedule", schedule=schedules[0].id if schedules else -1))

    def _run(self, call: wire.Call) -> Any:
        assert self._program is not None, "within `with`, and with a file"
        self._calls += 1
        result = None
        for one, arguments in self._program.steps(msgspec.structs.replace(call, id=self._calls)):
            value = one.run(*arguments)
            if isawaitable(value) and is_async(one.run):
                value = _awaited(value)
            if result is None and value is not None:
                result = value
        return None if result is None else _value(api.encoded(result))

    def __enter__(self) -> Self:
        self._kept = list(sys.path), list(sys.meta_path), set(sys.modules), dict(os.environ), api.registry
        self._folder = tempfile.TemporaryDirectory(prefix="edge-function-")
        files = {}
        for number, (name, value) in enumerate(self._secrets.items()):
            files[name] = str(Path(self._folder.name, str(number)))
            Path(files[name]).write_text(value)
        self.settings = msgspec.structs.replace(self.settings, secrets=files)
        os.environ.update(lambda_.environment(self.settings), **self.settings.environment)
        sys.meta_path.insert(0, Finder())
        api.registry = Registry()
        api.use(self)
        try:
            if self.settings.file:
                self._program = load(self.settings, api.registry)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The function's modules are forgotten: the next test loads them anew."""
        sys.path[:], sys.meta_path[:], known, environment, api.registry = self._kept
        os.environ.clear()
        os.environ.update(environment)
        path = Path(self.settings.file)
        folder = str(path if path.is_dir() else path.parent) + "/" if self.settings.file else None
        for name in set(sys.modules) - known:
            place = str(getattr(sys.modules[name], "__file__", None))
            if name.startswith("greengrasssdk") or (folder is not None and place.startswith(folder)):
                del sys.modules[name]
        api.use(None)
        self._folder.cleanup()

    def tell(self, request: api.Request) -> None:
        self.ask(request)

    def ask(self, request: api.Request) -> wire.Reply:
        match request(1):
            case wire.Publish() as published:
                if not any(matches(one, published.topic) for one in self.settings.publish):
                    return _no("denied", f"{published.topic} is not among what the function may publish")
                self.published.append((published.topic, _value(published.payload)))
                return wire.Reply(1)
            case wire.Shadow() as shadow:
                return self._shadow(shadow)
            case wire.Invoke() as invoked:
                return self._invoke(invoked)

    def deny(self, request: api.Request) -> wire.Reply:
        return self.ask(request)

    async def aask(self, request: api.Request) -> wire.Reply:
        return self.ask(request)

    def _invoke(self, asked: wire.Invoke) -> wire.Reply:
        if asked.function not in self._invoked:
            return _no("not_found", f"no function {asked.function}")
        answer = self._invoked[asked.function]
        return wire.Reply(1, payload=api.encoded(answer(asked.payload) if callable(answer) else answer))

    def _shadow(self, asked: wire.Shadow) -> wire.Reply:
        document = self.shadows.get(asked.name)
        if asked.action == "update":
            update = msgspec.json.decode(asked.payload)
            version = document.get("version", 0) if document else 0
            if update.get("version", version) != version:
                return _no("conflict", "Version conflict")
            state = _merged((document or {}).get("state", {}), update["state"])
            document = self.shadows[asked.name] = {"state": state, "version": version + 1}
        elif document is None:
            return _no("not_found", f"No shadow exists with name: '{asked.name}'")
        elif asked.action == "delete":
            del self.shadows[asked.name]
        return wire.Reply(1, payload=api.encoded(document))


def _no(error: str, message: str) -> wire.Reply:
    return wire.Reply(1, ok=False, error=error, message=message)


def _awaited(awaitable: Any) -> Any:
    async def run() -> Any:
        return await awaitable

    return asyncio.run(run())


def _value(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return payload


def _copy(document: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document))


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in merged.items() if value is not None}
