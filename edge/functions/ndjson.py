r"""The protocol of `exec` functions: a program in any language, one JSON object a line on its stdin and stdout. Pure.

A program reads a line, does its work, and writes lines; at the end of its stdin it ends. stderr is its log, and so are
the lines on stdout that do not begin with `{`. It must write its lines at once (flush). One call is given at a time.
Lines are UTF-8, at most 1 MiB.

On stdin, one call a line, written without spaces and with its fields in this order, so that a shell can cut it:

    {"id":7,"topic":"dt/b1/temp","payload":{"c":21.5},"kind":"message","client":"b1","time_ms":1700000000000,
     "attempt":1,"deadline_s":10.0,"reading":{"thing":"b1","boot":3,"sequence":9}}         (in one line)

- `payload` when the payload is JSON, otherwise `text` when it is UTF-8, otherwise `base64`.
- `kind`: `message`, `request` (an answer is awaited), `schedule`, `invoke`. Only when known: `client`, `time_ms`,
  `reading`, `response_topic`, `content_type`, `context` (Lambda's client context, of an `invoke`).

On stdout:

- `{"id":7}` the call is done. With `"result":VALUE` it has a result: a string is sent as its text, any other value as
  JSON; `"result_base64":"…"` for other bytes.
- `{"id":7,"error":"SensorGone","message":"for people"}` it failed, and comes again. `message` may be left out.
- `{"publish":"agg/b1","payload":VALUE}` publishes, before or without a call's end; a string is sent as its text, any
  other value as JSON; `"payload_base64":"…"` for other bytes. Also: `qos` (0, or 1 when left out), `retain`,
  `content_type`, `response_topic`, `correlation_base64`, `expiry_s`.
- `{"shadow":"get","ref":1}`, `{"shadow":"update","ref":2,"payload":{"state":{"reported":{"a":1}}}}`,
  `{"shadow":"delete","ref":3}`; `thing` for that of another thing, `name` for a named shadow.
- `{"invoke":"other","payload":VALUE,"ref":4}` calls another function of the gateway.

A request with a `ref` (a number from 1) is answered by a line on stdin: `{"ref":1,"ok":true,"payload":VALUE}`, or
`{"ref":1,"ok":false,"error":"denied","message":"…"}`; without one it is not. A program that uses them reads both kinds
of lines. Anything else ends the program, with the reason in the log. The variables EDGE_FUNCTION and EDGE_THING name
the function and the gateway; EDGE_SECRET_NAME is the file that holds the secret NAME.
"""

from typing import Annotated, Any, Final

import msgspec

from edge.errors import InputRejected
from edge.functions import wire

LINE_BYTES_MAX: Final = wire.FRAME_BYTES_MAX
_NOTHING: Final = msgspec.Raw()
_BRACE: Final = ord("{")

Ref = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a line may hold."""

    id: Ref | None = None
    result: msgspec.Raw = _NOTHING
    result_base64: bytes | None = None
    error: wire.Name | None = None
    message: str = ""
    publish: wire.Topic | None = None
    shadow: wire.Action | None = None
    invoke: wire.Name | None = None
    payload: msgspec.Raw = _NOTHING
    payload_base64: bytes | None = None
    ref: Ref | None = None
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    retain: bool = False
    content_type: str | None = None
    response_topic: str | None = None
    correlation_base64: bytes | None = None
    expiry_s: int | None = None
    thing: wire.Name = ""
    name: wire.Name = ""


_decode: Final = msgspec.json.Decoder(_Line).decode
_encode: Final = msgspec.json.Encoder().encode


class Lines:
    """One program's stdin and stdout, as the structs of `wire`: what a pool does with a worker's socket, it does with
    this. The program is given small call ids of its own; it says Ready at once, and stops at the end of its stdin."""

    def __init__(self) -> None:
        self.error: InputRejected | None = None
        self._held = bytearray()
        self._searched = 0
        self._text = bytearray()
        self._last = 0
        self._calls: dict[int, int] = {}
        self._ready: list[wire.FromWorker] = []

    def write(self, struct: wire.ToWorker) -> bytes:
        """What goes to its stdin: for Configure nothing, but `feed(b"")` says Ready then; for Stop nothing: close
        its stdin. Raises InputRejected: `line_too_long`, `line_text` for a lone surrogate."""
        if isinstance(struct, wire.Configure):
            self._ready = [wire.Ready(takes_all=True)]
            return b""
        if isinstance(struct, wire.Stop):
            return b""
        try:
            line = _encode(_reply(struct) if isinstance(struct, wire.Reply) else self._call(struct)) + b"\n"
        except UnicodeEncodeError as error:
            raise InputRejected("line_text", str(error)) from None
        if len(line) > LINE_BYTES_MAX:
            if isinstance(struct, wire.Call):
                del self._calls[self._last]
            raise InputRejected("line_too_long", f"{len(line)} bytes, at most {LINE_BYTES_MAX}")
        return line

    def feed(self, data: bytes) -> list[wire.FromWorker]:
        """What whole lines of its stdout say. A bad line sets `error`; it is raised as soon as there is nothing good to
        return before it, and ever after: `line_damaged`, `line_too_long`, `unknown_call`."""
        if self.error is not None:
            raise self.error
        found, self._ready = self._ready, []
        held = self._held
        held += data
        at = 0
        try:
            while at < len(held):
                end = self._end(at)
                if end <= at or end - at - 1 > LINE_BYTES_MAX:
                    break
                if held[at] == _BRACE:
                    self._line(bytes(held[at : end - 1]), found)
                else:
                    self._text += held[at:end]
                at = end
            if len(held) - at > LINE_BYTES_MAX:
                raise InputRejected("line_too_long", f"more than {LINE_BYTES_MAX} bytes without an end")
        except InputRejected as rejected:
            self.error = rejected
            held.clear()
            if not found:
                raise
            return found
        del held[:at]
        self._searched = len(held)
        return found

    def take_text(self) -> bytes:
        """Lines of its stdout that are its log, since the last time: no more than was fed."""
        text = bytes(self._text)
        self._text.clear()
        return text

    def _end(self, at: int) -> int:
        """Where the line at `at` ends, or the lines if they are its log: endless ones cost next to nothing. 0: it has
        no end yet."""
        held = self._held
        end = held.find(b"\n", max(at, self._searched)) + 1
        if held[at] != _BRACE and 0 < end - at <= LINE_BYTES_MAX:
            message = held.find(b"\n{", end - 1) + 1
            last = message or held.rfind(b"\n", end - 1) + 1
            if last - at <= LINE_BYTES_MAX:  # so none of them is longer
                end = last
        return end

    def _call(self, call: wire.Call) -> dict[str, Any]:
        self._last += 1
        self._calls[self._last] = call.id
        line: dict[str, Any] = {"id": self._last, "topic": call.topic, **_value(call.payload), "kind": call.kind}
        line |= {name: value for name in ("client", "time_ms") if (value := getattr(call, name))}
        line |= {"attempt": call.attempt, "deadline_s": call.deadline_s}
        if call.reading is not None:
            line["reading"] = call.reading
        if call.properties is not None:
            given = {name: getattr(call.properties, name) for name in ("response_topic", "content_type")}
            line |= {name: value for name, value in given.items() if value is not None}
        if call.context:
            line["context"] = _value(call.context).get("payload", {})
        return line

    def _line(self, line: bytes, found: list[wire.FromWorker]) -> None:
        try:
            found.append(self._said(_decode(line)))
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise InputRejected("line_damaged", f"{error!s:.150}: {line[:50]!r}") from None

    def _said(self, line: _Line) -> wire.FromWorker:
        """Raises ValueError for what does not go together."""
        if [line.id, line.publish, line.shadow, line.invoke].count(None) != 3:
            raise ValueError("a line holds one of id, publish, shadow, invoke")
        payload = _bytes(line.payload, line.payload_base64)
        if line.id is not None:
            return self._ended(line.id, line, payload)
        if line.result or line.result_base64 is not None or line.error is not None:
            raise ValueError("a result and an error go with an id")
        call = next(iter(self._calls.values()), 0)
        ref = line.ref or 0
        if line.shadow is not None:
            if not ref:
                raise ValueError("a shadow is asked for with a ref")
            return wire.Shadow(ref, call, line.shadow, line.thing, line.name, payload or b"")
        if line.invoke is not None:
            return wire.Invoke(ref, call, line.invoke, payload or b"")
        assert line.publish is not None
        return wire.Publish(ref, call, line.publish, payload or b"", line.qos, line.retain, _properties(line))

    def _ended(self, id_: int, line: _Line, payload: bytes | None) -> wire.FromWorker:
        if payload is not None:
            raise ValueError("a payload goes with publish, shadow, invoke")
        result = _bytes(line.result, line.result_base64)
        call = self._calls.pop(id_, None)
        if call is None:
            raise InputRejected("unknown_call", f"no call {id_} is open")
        if line.error is None:
            return wire.Done(call, result)
        if result is not None:
            raise ValueError("either a result or an error")
        return wire.Failed(call, line.error, line.message[: wire.MESSAGE_CHARACTERS_MAX])


def environment(settings: wire.Configure) -> dict[str, str]:
    """What a program's environment tells it, and what the gateway file grants."""
    secrets = {f"EDGE_SECRET_{name}": path for name, path in settings.secrets.items()}
    return {"EDGE_FUNCTION": settings.name, "EDGE_THING": settings.thing, **secrets, **settings.environment}


def _value(payload: bytes) -> dict[str, Any]:
    """As it is, in one line, when it is JSON: its numbers keep their digits."""
    try:
        msgspec.json.decode(payload)
        return {"payload": msgspec.Raw(msgspec.json.format(payload, indent=-1))}
    except (msgspec.MsgspecError, RecursionError, ValueError):
        pass
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": payload}


def _bytes(value: msgspec.Raw, raw: bytes | None) -> bytes | None:
    """A string's text, other values as they were written; None when neither is given. Raises ValueError."""
    written = bytes(value)
    if not written:
        return raw
    if raw is not None:
        raise ValueError("either a value or its base64")
    return msgspec.json.decode(written, type=str).encode() if written.startswith(b'"') else written


def _reply(reply: wire.Reply) -> dict[str, Any]:
    if reply.ok:
        return {"ref": reply.id, "ok": True, **(_value(reply.payload) if reply.payload else {})}
    return {"ref": reply.id, "ok": False, "error": reply.error, "message": reply.message}


def _properties(line: _Line) -> wire.PublishProperties | None:
    """Raises msgspec.ValidationError."""
    given = {
        "response_topic": line.response_topic,
        "content_type": line.content_type,
        "correlation_data": line.correlation_base64,
        "expiry_s": line.expiry_s,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return msgspec.convert(given, wire.PublishProperties) if given else None
