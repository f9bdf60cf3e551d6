"""What the gateway and a function's worker say to each other, pure: bytes in, structs out.

Each way of the stream socket carries frames: a length (u32, little-endian, at most FRAME_BYTES_MAX), then that many
bytes of msgpack, one of the structs below. The gateway begins with `Configure`. The worker answers `Ready` or
`StartFailed` (and then ends); as soon as it has `Configure`, also before `Ready`, it may send requests, which are
`Publish`, `Shadow` and `Invoke`, and `Tried`, which is not answered. Then:

- Each `Call` is answered once, by `Done` or `Failed`, in any order. A worker whose `Ready.concurrent` is False is given
  one at a time; others may come early and wait in its socket, their deadlines running from when they are begun. So do
  those of one that is concurrent, whose sync handlers take turns: of a call that waited it says `Begun` when it begins,
  of others when they have been under way for a while. Of one call it is said once at most, before its answer.
- A request whose id is not 0 is answered once, by `Reply`: to a publish when the router settled it. id 0: not answered;
  a publish that is denied or refused then makes its call fail. `call` names the call that asks, 0 for code outside any
  call. A call is done when `Done` came and all its publishes are settled.
- `Publish` that the grants allow goes out with id 0 and waits for nothing, unless the handler asks to wait. One beyond
  the grants carries an id, so that the handler is told; only the gateway's check counts.
- `Stop`: the worker answers what it has begun, and ends. It ends as well when the socket does; a sync call it is in
  ends first.
- A call whose deadline passes: an async handler is cancelled and answered by `Failed(error="TimeoutError")`, a sync one
  is not interrupted: the gateway ends the process.

The gateway trusts nothing here: what a worker's bytes may hold is bounded by the types, all else is InputRejected,
after which the stream is of no more use. Topics and filters come as the handler gave them: check_topic, check_filter.
"""

from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec

from edge.errors import InputRejected
from edge.messages import Properties, Reading

FRAME_BYTES_MAX: Final = 1_048_576
TRACEBACK_CHARACTERS_MAX: Final = 16_384
MESSAGE_CHARACTERS_MAX: Final = 4_096
NAME_CHARACTERS_MAX: Final = 256
DETAIL_CHARACTERS_MAX: Final = 300
HANDLERS_MAX: Final = 1_000
INTERVAL_S_MIN: Final = 0.001
INTERVAL_S_MAX: Final = 366 * 86_400.0

_HEAD_BYTES: Final = 4

Id = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Text = Annotated[str, msgspec.Meta(max_length=MESSAGE_CHARACTERS_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
Topic = Annotated[str, msgspec.Meta(max_length=65_535)]
Trace = Annotated[str, msgspec.Meta(max_length=TRACEBACK_CHARACTERS_MAX)]
Interval = Annotated[float, msgspec.Meta(ge=INTERVAL_S_MIN, le=INTERVAL_S_MAX)]
Ago = Annotated[float, msgspec.Meta(ge=0, le=INTERVAL_S_MAX)]
Kind = Literal["message", "schedule", "request", "invoke"]
Action = Literal["get", "update", "delete"]
Denied = Literal["files", "network", "privileges", "processes"]


_Line = Annotated[str, msgspec.Meta(max_length=16_383, pattern=r"^[^\0]*$")]  # at most 65,535 bytes, as MQTT's strings


class PublishProperties(Properties, frozen=True, gc=False):
    """Those that a worker may give, bounded so that any MQTT packet can carry them."""

    response_topic: _Line | None = None
    correlation_data: Annotated[bytes, msgspec.Meta(max_length=65_535)] | None = None
    content_type: _Line | None = None
    expiry_s: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    user: Annotated[tuple[tuple[_Line, _Line], ...], msgspec.Meta(max_length=100)] = ()

    def __post_init__(self) -> None:
        if self.payload_is_utf8:
            raise ValueError("payload_is_utf8 is not a worker's to promise")
        if (topic := self.response_topic) is not None and (not topic or "+" in topic or "#" in topic):
            raise ValueError("the response topic is no topic")


class Configure(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """The first frame. file: a Python file, or a folder, absolute. handler: `function` or `module.function` of Lambda's
    style, empty for the decorators. site: the folder of its requirements, or empty. publish: the grants. secrets: name
    to the file that holds it. memory_bytes_max: 0 for none. paths, network: what it is granted, so that it can
    tell what it tries beyond (`Tried`); paths with what each is granted for, none: it does not look. sockets_told: the
    kernel tells of those it makes, so it does not. group: an id of the gateway in the form of a UUID; region: of AWS,
    empty where the cloud is none of its."""

    name: str
    thing: str
    file: str
    handler: str = ""
    site: str = ""
    timeout_s: float = 10.0
    memory_bytes_max: int = 0
    publish: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}
    paths: tuple[tuple[str, str], ...] = ()
    network: bool = True
    group: str = ""
    region: str = ""
    sockets_told: bool = False


class Call(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """Run the handler. deadline_s: how long it may take, from when the worker begins it. attempt: from 1. schedule:
    which of `Ready.schedules`, for its kind alone; in Lambda's style always 0. client: who sent the message, empty when
    not known. context: for `invoke`, the JSON of Lambda's client context, or empty. request: names it for good, the
    same for all attempts, in the form of a UUID; empty when the gateway has no name for it."""

    id: int
    topic: str
    payload: bytes
    kind: Kind = "message"
    deadline_s: float = 10.0
    attempt: int = 1
    time_ms: int = 0
    client: str = ""
    reading: Reading | None = None
    properties: Properties | None = None
    schedule: int = 0
    context: bytes = b""
    request: Name = ""


class Reply(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """To the request of this id. payload: the shadow's document, the invoked function's result. When not ok, error is
    a word (`denied`, `invalid_topic`, `too_large`, `congested`, `refused`, `not_found`, `conflict`, `timeout`,
    `unavailable`, or the name of the error that the invoked function failed with) and message is for people."""

    id: int
    ok: bool = True
    payload: bytes = b""
    error: str = ""
    message: str = ""


class Stop(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """No more calls."""


class Schedule(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One @every. name: the Python function's."""

    id: Id
    name: Name
    interval_s: Interval


class Ready(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=11):
    """The code is loaded. filters: those of @on, in order. takes_all, in Lambda's style: whatever the configuration
    subscribes. concurrent: several calls may run side by side."""

    filters: Annotated[tuple[Topic, ...], msgspec.Meta(max_length=HANDLERS_MAX)] = ()
    schedules: Annotated[tuple[Schedule, ...], msgspec.Meta(max_length=HANDLERS_MAX)] = ()
    takes_all: bool = False
    concurrent: bool = False


class StartFailed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=12):
    """The code could not be loaded. error: the exception's class."""

    error: Name
    message: Text = ""
    traceback: Trace = ""


class Done(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=13):
    """result: what the handler returned: JSON, or bytes and text as they are; None for nothing."""

    id: Id
    result: bytes | None = None


class Failed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=14):
    """The handler raised, or returned what cannot be sent. error: the exception's class."""

    id: Id
    error: Name
    message: Text = ""
    traceback: Trace = ""


class Publish(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=15):
    id: Id
    call: Id
    topic: Topic
    payload: bytes
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    retain: bool = False
    properties: PublishProperties | None = None


class Shadow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=16):
    """thing: empty for the gateway's own. name: of a named shadow, empty for the classic one. payload: of `update`."""

    id: Id
    call: Id
    action: Action
    thing: Name = ""
    name: Name = ""
    payload: bytes = b""


class Invoke(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=17):
    """Call another function of this gateway. The `Reply` carries its result; with id 0 nobody waits for it. context:
    the JSON of Lambda's client context, or empty."""

    id: Id
    call: Id
    function: Name
    payload: bytes = b""
    context: bytes = b""


class Tried(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=18):
    """The code asked for what it is not granted. For people: what held it is the sandbox. At any time."""

    what: Denied
    detail: Annotated[str, msgspec.Meta(max_length=DETAIL_CHARACTERS_MAX)]


class Begun(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=19):
    """The call of this id has begun, so long ago."""

    id: Id
    ago_s: Ago = 0.0


ToWorker = Configure | Call | Reply | Stop
FromWorker = Ready | StartFailed | Done | Failed | Publish | Shadow | Invoke | Tried | Begun

T = TypeVar("T")


class FrameReader(Generic[T]):
    """Cuts a stream into structs; made by `to_worker()` and `from_worker()`. Holds at most one frame and what was fed.
    error: why the stream is of no more use; None while it is."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[T]", frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._decode = decoder.decode
        self._max = frame_bytes_max
        self._held = bytearray()
        self._need = _HEAD_BYTES
        self.error: InputRejected | None = None

    @property
    def unfinished(self) -> bool:
        """Whether the stream, were it to end now, ends within a frame."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[T]:
        """The structs that are whole by now. A bad frame (`frame_length`, `frame_damaged`) sets `error`; it is raised
        as soon as there is no good frame to return before it, and ever after."""
        if self.error is not None:
            raise self.error
        held = self._held
        held += data
        found: list[T] = []
        at, end = 0, len(held)
        if end < self._need:
            return found
        while end - at >= _HEAD_BYTES:
            size = int.from_bytes(held[at : at + _HEAD_BYTES], "little")
            if not 0 < size <= self._max:
                return self._reject(found, "frame_length", f"{size} bytes, of 1 to {self._max}")
            if end - at < _HEAD_BYTES + size:
                self._need = _HEAD_BYTES + size
                break
            try:
                found.append(self._decode(held[at + _HEAD_BYTES : at + _HEAD_BYTES + size]))
            except (msgspec.MsgspecError, RecursionError, ValueError) as error:
                return self._reject(found, "frame_damaged", str(error)[:200])
            at += _HEAD_BYTES + size
        else:
            self._need = _HEAD_BYTES
        del held[:at]
        return found

    def _reject(self, found: list[T], reason: str, detail: str) -> list[T]:
        self.error = InputRejected(reason, detail)
        self._held.clear()
        if not found:
            raise self.error
        return found


def from_worker() -> FrameReader[FromWorker]:
    """A reader for the gateway."""
    return FrameReader(msgspec.msgpack.Decoder(FromWorker))


def to_worker() -> FrameReader[ToWorker]:
    """A reader for the worker."""
    return FrameReader(msgspec.msgpack.Decoder(ToWorker))


_encode = msgspec.msgpack.Encoder().encode


def frame(struct: ToWorker | FromWorker) -> bytes:
    """One frame. Raises InputRejected: `frame_too_large`; `frame_text`, for a lone surrogate."""
    try:
        body = _encode(struct)
    except UnicodeEncodeError as error:
        raise InputRejected("frame_text", str(error)) from None
    if len(body) > FRAME_BYTES_MAX:
        raise InputRejected("frame_too_large", f"{len(body)} bytes, at most {FRAME_BYTES_MAX}")
    return len(body).to_bytes(_HEAD_BYTES, "little") + body
