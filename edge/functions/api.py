"""What a function imports: `from edge import on, every, publish, shadow, secret`. README, "Write a function".

    from edge import Message, every, on, publish

    @on("dt/+/temp")
    def warn(message: Message) -> None:
        if message.json()["c"] > 80:
            publish("alarm/hot", {"topic": message.topic})

    @every("10 s")
    async def tick() -> None: ...

A handler takes a message or nothing, and is sync or async; it is the same callable after its decoration, so a test
may just call it. What it returns answers a request: JSON, or str and bytes as they are. When it raises, the message is
given again later. The functions with an `a` before their name are for async handlers.
"""

import contextvars
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, Protocol, TypeVar, overload

import msgspec

from edge.functions import wire
from edge.functions.handlers import Registry, Run, check_topic, interval_s
from edge.messages import Properties, Reading

__all__ = [
    "Message",
    "PayloadInvalid",
    "Reading",
    "RequestDenied",
    "RequestFailed",
    "ainvoke",
    "apublish",
    "every",
    "invoke",
    "on",
    "publish",
    "secret",
    "shadow",
]

Payload = Any  # bytes and str as they are, anything else as JSON

F = TypeVar("F", bound=Run)
T = TypeVar("T")


class RequestFailed(Exception):
    """The gateway did not do what was asked. error: a stable word, such as `unavailable`, `not_found`, `conflict`."""

    def __init__(self, error: str, message: str = "") -> None:
        self.error, self.message = error, message
        super().__init__(f"{error}: {message}" if message else error)


class RequestDenied(RequestFailed):
    """The gateway file does not grant it."""


class PayloadInvalid(ValueError):
    """A payload is not the JSON that was asked for, or a value cannot be written as such."""


class Message(msgspec.Struct, frozen=True):
    """What a handler is given. client: who sent it, empty when not known. reading: the board's name for it, the same
    when it comes again. time_ms: Unix time when the gateway took it. attempt: from 1. kind: "schedule" for @every."""

    topic: str
    payload: bytes = b""
    client: str = ""
    reading: Reading | None = None
    time_ms: int = 0
    attempt: int = 1
    kind: wire.Kind = "message"
    properties: Properties = Properties()
    deadline: float = float("inf")

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = Any) -> Any:
        """The payload's value; of this type (a dataclass, a TypedDict, a msgspec.Struct) if one is given. Raises
        PayloadInvalid."""
        try:
            return msgspec.json.decode(self.payload, type=type)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise PayloadInvalid(str(error)[:200]) from None

    @property
    def text(self) -> str:
        """The payload as UTF-8. Raises PayloadInvalid."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise PayloadInvalid(str(error)) from None

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.time_ms / 1000, UTC)

    @property
    def response_topic(self) -> str | None:
        """Where the answer will go, if one is awaited."""
        return self.properties.response_topic

    @property
    def remaining_s(self) -> float:
        """Until the gateway gives this call up."""
        return max(0.0, self.deadline - time.monotonic())


registry = Registry()  # the worker is one function's; the test harness has its own for each test


def on(*filters: str) -> Callable[[F], F]:
    """Run the handler for messages whose topic one of the filters takes."""
    if not filters or not all(isinstance(one, str) for one in filters):
        raise TypeError('@on takes topic filters: @on("dt/+/temp")')

    def register(run: F) -> F:
        for topic_filter in filters:
            registry.on(topic_filter, run)
        return run

    return register


def every(interval: str | float) -> Callable[[F], F]:
    """Run the handler again and again: `10 s`, `5 min`, `1 h`, or seconds."""
    if callable(interval):
        raise TypeError('@every takes an interval: @every("10 s")')
    seconds = interval_s(interval)

    def register(run: F) -> F:
        registry.every(seconds, run)
        return run

    return register


Request = Callable[[int], wire.Publish | wire.Shadow | wire.Invoke]


class Gateway(Protocol):
    """The seam: the worker's channel, or the test harness. A request is made of the id that it shall have."""

    settings: wire.Configure

    def tell(self, request: Request) -> None:
        """Without an answer."""

    def ask(self, request: Request) -> wire.Reply: ...

    def deny(self, request: Request) -> wire.Reply:
        """As ask, of what is not granted: the gateway counts it. In an async handler too, which waits for nothing."""

    async def aask(self, request: Request) -> wire.Reply: ...


_gateway: Gateway | None = None
current_call: contextvars.ContextVar[int] = contextvars.ContextVar("edge_call", default=0)


def use(gateway: Gateway | None) -> None:
    """Whom all below asks: set once by the worker, and by the test harness."""
    global _gateway  # noqa: PLW0603 - there is one gateway to a process
    _gateway = gateway


def connected() -> Gateway:
    if _gateway is None:
        raise RequestFailed("unavailable", "no gateway here; in a test: with edge.functions.testing.Gateway():")
    return _gateway


def _plain(value: Any) -> Any:
    """Of what msgspec refuses, what the standard library's json takes: subclasses, such as numpy's float64, and None
    and bool as keys."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    raise TypeError(f"{type(value).__name__!r:.100} cannot be written as JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def encoded(value: Payload) -> bytes:
    """bytes and str as they are, None as nothing, anything else as JSON. Raises PayloadInvalid."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise PayloadInvalid(f"cannot be written as JSON: {error!s:.200}") from None


def publish(
    topic: str,
    payload: Payload = b"",
    *,
    qos: Literal[0, 1] = 1,
    retain: bool = False,
    wait: bool = False,
    content_type: str | None = None,
    response_topic: str | None = None,
    correlation_data: bytes | None = None,
    expiry_s: int | None = None,
    user: Mapping[str, str] | None = None,
) -> None:
    """Publish through the gateway's routes. The call is done only when all that it published was taken, else it is made
    again; wait: return not before that. Raises RequestDenied beyond the grants, ValueError for a wrong topic."""
    properties = _properties(content_type, response_topic, correlation_data, expiry_s, user)
    asked = _publishing(topic, payload, qos, retain, properties)
    gateway = connected()
    if not granted(gateway, topic):
        _done(gateway.deny(asked))
    elif wait:
        _done(gateway.ask(asked))
    else:
        gateway.tell(asked)


async def apublish(
    topic: str,
    payload: Payload = b"",
    *,
    qos: Literal[0, 1] = 1,
    retain: bool = False,
    content_type: str | None = None,
    response_topic: str | None = None,
    correlation_data: bytes | None = None,
    expiry_s: int | None = None,
    user: Mapping[str, str] | None = None,
) -> None:
    """As `publish` with wait, for async handlers."""
    properties = _properties(content_type, response_topic, correlation_data, expiry_s, user)
    _done(await connected().aask(_publishing(topic, payload, qos, retain, properties)))


def invoke(function: str, payload: Payload = b"", *, wait: bool = True) -> bytes:
    """Call another function of this gateway and return its result; b"" without wait. Raises RequestFailed."""
    asked = invoking(function, encoded(payload))
    if not wait:
        connected().tell(asked)
        return b""
    return _done(connected().ask(asked))


async def ainvoke(function: str, payload: Payload = b"") -> bytes:
    """As `invoke`, for async handlers."""
    return _done(await connected().aask(invoking(function, encoded(payload))))


def secret(name: str) -> str:
    """A secret that the gateway file grants, as it is now, without a line's end at its end. Raises RequestDenied."""
    files = connected().settings.secrets
    if name not in files:
        raise RequestDenied("denied", f"no secret {name!r} is granted; granted: {', '.join(files) or 'none'}")
    try:
        with open(files[name], encoding="utf-8") as file:
            return file.read().removesuffix("\n")
    except (OSError, ValueError) as error:
        raise RequestFailed("unavailable", f"secret {name!r}: {type(error).__name__}") from None


class Shadow:
    """The device shadows of the gateway and of the things behind it. name: of a named shadow, empty for the classic
    one; thing: empty for the gateway. All return the whole document of AWS IoT: state, metadata, version, timestamp.
    They raise RequestFailed: `not_found`, `conflict`, `timeout`, `unavailable`, …"""

    def get(self, name: str = "", *, thing: str = "") -> dict[str, Any]:
        return _document(connected().ask(shadowing("get", thing, name)))

    def update(
        self,
        *,
        reported: Any = msgspec.UNSET,
        desired: Any = msgspec.UNSET,
        name: str = "",
        thing: str = "",
        version: int | None = None,
    ) -> dict[str, Any]:
        """Merge into what is there; None deletes a key. version: only if it is still this one, else `conflict`."""
        return _document(connected().ask(shadowing("update", thing, name, _update(reported, desired, version))))

    def delete(self, name: str = "", *, thing: str = "") -> None:
        _done(connected().ask(shadowing("delete", thing, name)))

    async def aget(self, name: str = "", *, thing: str = "") -> dict[str, Any]:
        return _document(await connected().aask(shadowing("get", thing, name)))

    async def aupdate(
        self,
        *,
        reported: Any = msgspec.UNSET,
        desired: Any = msgspec.UNSET,
        name: str = "",
        thing: str = "",
        version: int | None = None,
    ) -> dict[str, Any]:
        body = _update(reported, desired, version)
        return _document(await connected().aask(shadowing("update", thing, name, body)))

    async def adelete(self, name: str = "", *, thing: str = "") -> None:
        _done(await connected().aask(shadowing("delete", thing, name)))


shadow = Shadow()


def shadowing(action: wire.Action, thing: str, name: str, payload: bytes = b"") -> Request:
    _check_names(thing, name)
    call = current_call.get()
    return lambda id_: wire.Shadow(id_, call, action, thing, name, payload)


def invoking(function: str, payload: bytes, context: bytes = b"") -> Request:
    _check_names(function)
    call = current_call.get()
    return lambda id_: wire.Invoke(id_, call, function, payload, context)


def _check_names(*names: str) -> None:
    for name in names:
        if not isinstance(name, str) or len(name) > wire.NAME_CHARACTERS_MAX:
            raise ValueError(f"no name: {name!r:.100}")


def _publishing(
    topic: str, payload: Payload, qos: int, retain: bool, properties: wire.PublishProperties | None
) -> Request:
    check_topic(topic)
    if qos not in {0, 1} or not isinstance(retain, bool):
        raise ValueError(f"qos is 0 or 1, retain True or False: {qos!r:.50}, {retain!r:.50}")
    call, body = current_call.get(), encoded(payload)
    return lambda id_: wire.Publish(id_, call, topic, body, qos, retain, properties)


def _properties(
    content_type: str | None,
    response_topic: str | None,
    correlation_data: bytes | None,
    expiry_s: int | None,
    user: Mapping[str, str] | None,
) -> wire.PublishProperties | None:
    if (content_type, response_topic, correlation_data, expiry_s, user) == (None,) * 5:
        return None
    given = {
        "response_topic": response_topic,
        "correlation_data": correlation_data,
        "content_type": content_type,
        "expiry_s": expiry_s,
        "user": tuple(user.items()) if user else (),
    }
    try:  # the gateway would end a worker that sends what is out of bounds
        return msgspec.convert(given, wire.PublishProperties)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


_grants: dict[tuple[str, ...], Registry] = {}


def granted(gateway: Gateway, topic: str) -> bool:
    """Whether it may be published. Only spares the wait for the answer: the gateway checks for itself."""
    filters = gateway.settings.publish
    known = _grants.get(filters)
    if known is None:
        known = Registry()
        for topic_filter in filters:
            known.on(topic_filter, _nothing)
        _grants.clear()
        _grants[filters] = known
    return bool(known.taking(topic))


def _nothing() -> None: ...


def _done(reply: wire.Reply) -> bytes:
    if not reply.ok:
        raise_for(reply)
    return reply.payload


def raise_for(reply: wire.Reply) -> NoReturn:
    raise (RequestDenied if reply.error == "denied" else RequestFailed)(reply.error, reply.message)


def _document(reply: wire.Reply) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_done(reply), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise RequestFailed("invalid_answer", str(error)) from None


def _update(reported: Any, desired: Any, version: int | None) -> bytes:
    given = (("reported", reported), ("desired", desired))
    state = {part: value for part, value in given if value is not msgspec.UNSET}
    if not state:
        raise TypeError("give reported, desired, or both")
    return encoded({"state": state} if version is None else {"state": state, "version": version})
