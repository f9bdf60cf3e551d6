import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputRejected
from edge.functions import ndjson, wire
from edge.messages import Properties, Reading

PROGRAMS = Path(__file__).parent / "programs"
READY = wire.Ready(takes_all=True)


def started() -> ndjson.Lines:
    lines = ndjson.Lines()
    assert lines.write(wire.Configure("f", "g", "")) == b""
    assert lines.feed(b"") == [READY]
    return lines


def called(*ids: int) -> ndjson.Lines:
    lines = started()
    for id_ in ids:
        lines.write(wire.Call(id_, "t", b""))
    return lines


class Program:
    """A real process behind Lines."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.lines, self.process = started(), process
        self.said: list[wire.FromWorker] = []

    def write(self, struct: wire.ToWorker) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(self.lines.write(struct))
        self.process.stdin.flush()

    def read(self, count: int) -> list[wire.FromWorker]:
        assert self.process.stdout is not None
        until = time.monotonic() + 30
        while len(self.said) < count:
            assert select.select([self.process.stdout], [], [], until - time.monotonic())[0], self.said
            self.said += self.lines.feed(self.process.stdout.read1(65536))  # type: ignore[attr-defined]
        said, self.said = self.said[:count], self.said[count:]
        return said


@contextmanager
def program(*arguments: str) -> Iterator[Program]:
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        yield Program(process)
        _, error = process.communicate(timeout=30)
        assert process.returncode == 0, error


def test_a_program_in_python_runs() -> None:
    with program(sys.executable, str(PROGRAMS / "mean.py")) as one:
        for number, (topic, payload) in enumerate([("a", b'{"c":1}'), ("a", b'{"c":2.5}'), ("b", b"[]")]):
            one.write(wire.Call(100 + number, topic, payload))
        assert one.read(5) == [
            wire.Publish(0, 100, "mean/a", b'{"c": 1.0}'),
            wire.Done(100, b"1.0"),
            wire.Publish(0, 101, "mean/a", b'{"c": 1.75}'),
            wire.Done(101, b"1.75"),
            wire.Failed(102, "NoTemperature", "on b"),
        ]


def test_a_program_in_a_shell_runs_and_gets_answers() -> None:
    with program("sh", str(PROGRAMS / "count.sh")) as one:
        one.write(wire.Call(2**61, "a", b"x y\n'\"$(exit)"))
        assert one.read(2) == [wire.Publish(0, 2**61, "count", b"1"), wire.Done(2**61, b"call 1")]
        one.write(wire.Call(8, "a", b""))
        assert one.read(1) == [wire.Shadow(1, 8, "get")]
        one.write(wire.Reply(1, payload=b'{ "version": 3 }'))
        assert one.read(2) == [wire.Publish(0, 8, "count", b"2"), wire.Done(8, b"call 2")]
        assert one.lines.take_text() == b'counting\nthe shadow: {"ref":1,"ok":true,"payload":{"version":3}}\n'
        assert one.lines.take_text() == b""


def test_a_program_in_perl_runs() -> None:
    with program("perl", str(PROGRAMS / "alarm.pl")) as one:
        one.write(wire.Call(1, "boiler/1", b'{"c":80}'))
        one.write(wire.Call(2, "boiler/2", b'{"c":80.5}'))
        text = wire.PublishProperties(content_type="text/plain")
        assert one.read(3) == [
            wire.Done(1),
            wire.Publish(0, 2, "alarm/boiler/2", b"80.5 degrees", 0, False, text),
            wire.Done(2),
        ]


@pytest.mark.parametrize(
    ("payload", "field", "value"),
    [
        (b'{"c":21.50}', "payload", {"c": 21.5}),
        (b" [1,\n 2] ", "payload", [1, 2]),
        (b"null", "payload", None),
        (b"", "text", ""),
        ("é\n".encode(), "text", "é\n"),
        (b"NaN", "text", "NaN"),
        (b"1e999", "text", "1e999"),
        (b"\xff\x00", "base64", "/wA="),
        (b"[" * 100_000 + b"]" * 100_000, "text", "[" * 100_000 + "]" * 100_000),
    ],
)
def test_a_payload_is_json_or_text_or_base64_in_one_line(payload: bytes, field: str, value: object) -> None:
    line = started().write(wire.Call(1, "t", payload))
    assert line.count(b"\n") == 1
    assert json.loads(line)[field] == value


def test_numbers_keep_their_digits() -> None:
    assert b'"payload":[1.50,12345678901234567890123]' in started().write(
        wire.Call(1, "t", b"[ 1.50, 12345678901234567890123 ]")
    )


def test_a_call_has_its_fields_in_the_order_told() -> None:
    call = wire.Call(
        9,
        "a/b",
        b"1",
        "request",
        3.5,
        2,
        1_700_000_000_000,
        "b1",
        Reading("b1", 3, 9),
        Properties(response_topic="r", content_type="c"),
        context=b'{"custom":1}',
    )
    assert started().write(call) == (
        b'{"id":1,"topic":"a/b","payload":1,"kind":"request","client":"b1","time_ms":1700000000000,"attempt":2,'
        b'"deadline_s":3.5,"reading":{"thing":"b1","boot":3,"sequence":9},"response_topic":"r","content_type":"c",'
        b'"context":{"custom":1}}\n'
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id":1}', wire.Done(70)),
        ('{"id":1,"result":null}', wire.Done(70, b"null")),
        ('{"id":1,"result":"é"}', wire.Done(70, "é".encode())),
        ('{"id":1,"result":""}', wire.Done(70, b"")),
        ('{ "id" : 1 , "result" : { "a" : 1.50 } } ', wire.Done(70, b'{ "a" : 1.50 }')),
        ('{"id":1,"result_base64":"/wA="}', wire.Done(70, b"\xff\x00")),
        ('{"id":1,"error":"E","message":"m"}', wire.Failed(70, "E", "m")),
        ('{"publish":"a"}', wire.Publish(0, 70, "a", b"")),
        ('{"publish":"a","payload_base64":"AA==","ref":5}', wire.Publish(5, 70, "a", b"\0")),
        (
            '{"publish":"a","payload":"t","qos":0,"retain":true,"response_topic":"r","correlation_base64":"AA=="}',
            wire.Publish(0, 70, "a", b"t", 0, True, wire.PublishProperties("r", b"\0")),
        ),
        (
            '{"shadow":"update","ref":1,"thing":"t","name":"n","payload":{}}',
            wire.Shadow(1, 70, "update", "t", "n", b"{}"),
        ),
        ('{"invoke":"f","payload":1}', wire.Invoke(0, 70, "f", b"1")),
        ('{"invoke":"f","ref":2}', wire.Invoke(2, 70, "f")),
    ],
)
def test_what_a_program_says(line: str, said: wire.FromWorker) -> None:
    stream = line.encode() + b"\n"
    assert called(70, 71).feed(stream) == [said]
    lines = called(70, 71)
    assert [one for at in range(len(stream)) for one in lines.feed(stream[at : at + 1])] == [said]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        '{"id":1,"publish":"a"}',
        '{"id":0}',
        '{"id":-1}',
        '{"id":"1"}',
        '{"id":1.5}',
        '{"id":true}',
        '{"id":1,"result":1,"error":"E"}',
        '{"id":1,"result":1,"result_base64":""}',
        '{"id":1,"result_base64":"?"}',
        '{"id":1,"result":}',
        '{"id":1,"result":"\\ud800"}',
        '{"id":1,"payload":1}',
        '{"id":1,"reslut":1}',
        '{"id":1} {"id":2}',
        '{"id":1,"error":"' + "E" * 257 + '"}',
        '{"publish":"a","payload":"\udcff"}',
        '{"publish":"a","qos":2}',
        '{"publish":"a","ref":0}',
        '{"publish":"a","result":1}',
        '{"publish":"a","error":"E"}',
        '{"publish":"a","response_topic":"#"}',
        '{"publish":"a","content_type":"\\u0000"}',
        '{"publish":"a","expiry_s":-1}',
        '{"publish":"' + "a" * 65_536 + '"}',
        '{"shadow":"get"}',
        '{"shadow":"destroy","ref":1}',
        '{"id":1,"result":' + "[" * 100_000 + "}",
        '{"id":1,"result":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_a_damaged_line_ends_the_stream(line: str) -> None:
    lines = called(70)
    with pytest.raises(InputRejected, match="line_damaged"):
        lines.feed(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InputRejected, match="line_damaged"):
        lines.feed(b'{"id":1}\n')


def test_a_call_ends_once_and_the_next_becomes_the_one_that_publishes() -> None:
    lines = called(70, 71)
    assert lines.feed(b'{"id":1}\n{"publish":"a"}\n{"id":2}\n{"publish":"a"}\n') == [
        wire.Done(70),
        wire.Publish(0, 71, "a", b""),
        wire.Done(71),
        wire.Publish(0, 0, "a", b""),
    ]
    assert lines.feed(b'{"publish":"b"}\n{"id":2}\n') == [wire.Publish(0, 0, "b", b"")]
    with pytest.raises(InputRejected, match="unknown_call"):
        lines.feed(b"")


def test_other_lines_are_the_log() -> None:
    lines = called(70)
    log = b"a\n\n" + b"x" * 100_000 + b"\n\xff\n[1]\n"
    assert lines.feed(log + b'{"id":1}\n' + b"line\n" * 5000 + b"not whole") == [wire.Done(70)]
    assert lines.take_text() == log + b"line\n" * 5000
    assert lines.feed(b"\n") == []
    assert lines.take_text() == b"not whole\n"


def test_log_lines_may_be_more_together_than_one_may_be_long() -> None:
    line = b"x" * 700_000 + b"\n"
    lines = called(70)
    assert lines.feed(line * 3 + b'{"id":1}\n' + line) == [wire.Done(70)]
    assert lines.take_text() == line * 4
    lines = called(70)
    assert lines.feed(b'{"id":1}\n' + line + b"x" * (ndjson.LINE_BYTES_MAX + 1) + b"\n") == [wire.Done(70)]
    assert lines.take_text() == line
    with pytest.raises(InputRejected, match="line_too_long"):
        lines.feed(b"")


@pytest.mark.parametrize("start", [b"{", b""])
def test_a_line_without_end_is_rejected(start: bytes) -> None:
    lines = started()
    assert lines.feed(start + b"x" * 1_000_000) == []
    with pytest.raises(InputRejected, match="line_too_long"):
        lines.feed(b"x" * 50_000)
    lines = called(70)
    with pytest.raises(InputRejected, match="line_too_long"):
        lines.feed(start + b"x" * (ndjson.LINE_BYTES_MAX + 1) + b"\n")


def test_a_call_that_fits_no_line_is_not_written_and_stays_no_ones() -> None:
    lines = started()
    with pytest.raises(InputRejected, match="line_too_long"):
        lines.write(wire.Call(5, "t", b"\xff" * 800_000))
    with pytest.raises(InputRejected, match="unknown_call"):
        lines.feed(b'{"id":1}\n')


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_lines_or_rejected(stream: bytes, cut: int) -> None:
    for start in (b"", b'{"id":1,'):
        lines = called(70)
        try:
            lines.feed((start + stream)[:cut])
            lines.feed((start + stream)[cut:] + b"\n")
        except InputRejected as rejected:
            assert rejected.reason in {"line_damaged", "unknown_call"}


@given(st.text(), st.binary(max_size=100))
def test_any_call_is_one_line_of_json(topic: str, payload: bytes) -> None:
    try:
        line = started().write(wire.Call(1, topic, payload))
    except InputRejected as rejected:
        assert rejected.reason == "line_text"
    else:
        assert json.loads(line)["topic"] == topic
        assert line.count(b"\n") == 1


def test_the_environment_names_the_function_and_the_files_of_its_secrets() -> None:
    settings = wire.Configure("f", "gw", "", environment={"A": "b"}, secrets={"KEY": "/run/key"})
    assert ndjson.environment(settings) == {
        "EDGE_FUNCTION": "f",
        "EDGE_THING": "gw",
        "EDGE_SECRET_KEY": "/run/key",
        "A": "b",
    }
