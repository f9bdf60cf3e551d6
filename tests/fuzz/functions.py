"""What must hold of whatever a function's process says."""

from typing import Final

import msgspec

from edge.errors import InputRejected
from edge.functions import ndjson, wire
from edge.messages import Properties, Reading

_CALL: Final = wire.Call(
    7, "dt/b1/temp", b'{"c":21.5}', "request", 5.0, 1, 1, "b1", Reading("b1", 1, 2), Properties(response_topic="r")
)
_SAID: Final[tuple[wire.FromWorker, ...]] = (
    wire.Ready(("dt/+/temp",), (wire.Schedule(0, "tick", 10.0),)),
    wire.StartFailed("SyntaxError", "line 1", "trace"),
    wire.Done(7, b"result"),
    wire.Done(7),
    wire.Failed(7, "ValueError", "no", "trace"),
    wire.Publish(
        1, 7, "agg/a", b"{}", 0, True, wire.PublishProperties("r", b"c", "text/plain", False, 5, (("k", "v"),))
    ),
    wire.Shadow(2, 7, "update", "t", "n", b"{}"),
    wire.Invoke(3, 7, "other", b"", b"{}"),
    wire.Begun(7, 0.5),
)
_LINES: Final = (
    '{"id":1}',
    '{"id":1,"result":{"a":[1.5,null]}}',
    '{"id":1,"result_base64":"AA=="}',
    '{"id":1,"error":"E","message":"m"}',
    '{"publish":"a","payload":"t","qos":0,"retain":true,"content_type":"c","response_topic":"r","expiry_s":3,"ref":1}',
    '{"publish":"a","payload_base64":"AA==","correlation_base64":"AA=="}',
    '{"shadow":"update","ref":2,"payload":{"state":{}},"thing":"t","name":"n"}',
    '{"invoke":"f","payload":1,"ref":3}',
    "a line of the log",
)

WIRE_SEEDS: Final = [b"\x05" + wire.frame(one) for one in _SAID] + [b"\x09" + b"".join(map(wire.frame, _SAID))]
LINES_SEEDS: Final = [b"\x05" + line.encode() + b"\n" for line in _LINES] + [b"\x20" + "\n".join(_LINES).encode()]


def function_wire(data: bytes) -> None:
    """data: where to cut the stream, and the stream. However it is cut, the same comes out; it can be written again."""
    if not data:
        return
    cut, stream = data[0], data[1:]
    found = _read(wire.from_worker(), [stream])
    assert found == _read(wire.from_worker(), [stream[:cut], stream[cut:]])
    for one in found[0]:
        assert wire.from_worker().feed(wire.frame(one)) == [one]
    reader = wire.to_worker()
    try:
        reader.feed(stream)
    except InputRejected as rejected:
        assert rejected.reason in {"frame_length", "frame_damaged"}


def function_lines(data: bytes) -> None:
    """data: as for `function_wire`. What a program may say, a worker may say; a call of any payload is one line."""
    if not data:
        return
    cut, stream = data[0], data[1:]
    whole, pieces = _called(), _called()
    found = _read(whole, [stream])
    assert found == _read(pieces, [stream[:cut], stream[cut:]])
    assert whole.take_text() == pieces.take_text()
    for one in found[0]:
        assert wire.from_worker().feed(wire.frame(one)) == [one]
    line = whole.write(wire.Call(8, "t", stream))
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line)["topic"] == "t"


def _called() -> ndjson.Lines:
    lines = ndjson.Lines()
    lines.write(_CALL)
    return lines


def _read(
    reader: wire.FrameReader[wire.FromWorker] | ndjson.Lines, pieces: list[bytes]
) -> tuple[list[wire.FromWorker], str]:
    found: list[wire.FromWorker] = []
    try:
        for piece in [*pieces, b""]:
            found += reader.feed(piece)
    except InputRejected as rejected:
        assert rejected is reader.error
        return found, rejected.reason
    return found, ""
