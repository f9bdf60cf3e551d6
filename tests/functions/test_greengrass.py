"""Functions in the shapes of Greengrass v1's public examples run unchanged, and the SDK's names behave as the SDK's."""

import json
from pathlib import Path
from typing import Any

import pytest

from edge.functions import wire
from tests.functions.workers import Request, Worker, configure, worker

FUNCTIONS = Path(__file__).parent / "greengrass"


def of(file: str, handler: str, **fields: Any) -> wire.Configure:
    return wire.Configure("made", "core-1", str(FUNCTIONS / file), handler, **fields)


def test_a_timer_that_the_import_begins_publishes_for_ever() -> None:
    with Worker(of("hello.py", "function_handler", publish=("hello/#",))) as one:
        assert one.ready() == wire.Ready(takes_all=True)
        published = [one.request() for _ in range(3)]
        assert all(isinstance(request, wire.Publish) and request.topic == "hello/world" for request in published)
        assert {request.call for request in published} == {0}
        assert one.done() is None
        one.send(wire.Stop())
        assert one.wait() == 0


def test_a_timer_that_may_not_publish_says_so_in_its_log() -> None:
    def deny(request: Request) -> wire.Reply:
        return wire.Reply(request.id, ok=False, error="denied", message="hello/world is not granted")

    with Worker(of("hello.py", "function_handler"), deny) as one:
        one.ready()
        one.request()
        one.request()
        assert "not greeted: InvocationException('Failed to invoke function due to denied" in one.output()


ENDLESS = """
    import time
    import greengrasssdk

    client = greengrasssdk.client("iot-data")

    def run():
        number = 0
        while True:
            client.publish(topic="out/number", payload=str(number))
            number += 1
            time.sleep(0.02)
            {after}

    run()

    def function_handler(event, context):
        return "called"
"""


def test_an_import_that_never_ends_publishes_and_counts_as_loaded_after_a_time(tmp_path: Path) -> None:
    settings = configure(tmp_path, ENDLESS.format(after=""), handler="function_handler")
    with Worker(settings, arguments="long_lived_s=0.3") as one:
        before = one.request()
        assert one.ready() == wire.Ready(takes_all=True)
        assert isinstance(before, wire.Publish)
        one.request()
        one.socket.close()
        one.process.kill()  # as the gateway does with what does not stop


def test_an_import_that_ends_late_takes_calls_then_or_tells_why_in_its_log(tmp_path: Path) -> None:
    ends = "if number > 30: return"
    settings = configure(tmp_path, ENDLESS.format(after=ends), handler="function_handler")
    with Worker(settings, arguments="long_lived_s=0.2") as one:
        one.ready()
        assert one.done() == b"called"
    fails = "if number > 30: raise RuntimeError('late')"
    settings = configure(tmp_path, ENDLESS.format(after=fails), handler="function_handler")
    with Worker(settings, arguments="long_lived_s=0.2") as one:
        one.ready()
        assert one.wait() == 1
        assert "RuntimeError: late" in one.output()


def test_a_message_turns_a_things_shadow() -> None:
    documents: dict[str, dict[str, Any]] = {}

    def shadows(request: Request) -> wire.Reply:
        if not isinstance(request, wire.Shadow):
            return wire.Reply(request.id)
        thing = request.thing
        if request.action == "update":
            version = documents.get(thing, {"version": 0})["version"] + 1
            documents[thing] = {**json.loads(request.payload), "version": version}
        elif thing not in documents:
            return wire.Reply(request.id, ok=False, error="not_found", message="No shadow exists with name: 'lamp'")
        document = documents.pop(thing) if request.action == "delete" else documents[thing]
        return wire.Reply(request.id, payload=json.dumps(document).encode())

    with Worker(of("light", "lambda_function.lambda_handler", publish=("lights/#",)), shadows) as one:
        one.ready()
        for version, colour in enumerate(["red", "green", "yellow", "red"], start=1):
            assert one.done(payload=b'{"thing":"lamp"}') == b"%d" % version
            assert documents["lamp"]["state"]["reported"]["colour"] == colour
        assert 'error code 404 with message "No shadow exists' in one.output()
        assert one.done(payload=b'{"thing":"lamp","remove":1}') == b"5"
        assert documents == {}
        assert {r.payload for r in one.requests if isinstance(r, wire.Publish)} == {
            b'{"thing": "lamp", "colour": "%b"}' % colour for colour in (b"red", b"green", b"yellow")
        }


def test_a_thread_of_the_functions_own_publishes_what_handlers_queue() -> None:
    with Worker(of("queued.py", "function_handler", publish=("seen/#",))) as one:
        one.ready()
        left = json.loads(one.done("cars/a", b'{"n":1}', deadline_s=5.0) or b"")["left_ms"]
        assert 0 < left <= 5000
        assert [(r.topic, r.payload) for r in one.requests if isinstance(r, wire.Publish)] == [
            ("seen/a", b'{"from": "cars/a", "seen": {"n": 1}}'),
        ]
        assert "INFO:root:made" in one.output()


def test_the_context_has_lambdas_fields(tmp_path: Path) -> None:
    code = """
        def handler(event, context):
            again = context.client_context
            return [context.function_name, context.function_version, context.invoked_function_arn.split(":")[6],
                    context.memory_limit_in_mb, context.aws_request_id, context.log_group_name,
                    bool(context.log_stream_name), context.identity.cognito_identity_id, again.custom, again.env,
                    again.client, event if event != b"raw" else "raw bytes"]
    """
    with worker(tmp_path, code, handler="handler", memory_bytes_max=67_108_864) as one:
        one.ready()
        told = json.loads(one.done("a/b", b"raw", context=b"", request="0a-1b") or b"")
        assert told[:10] == [
            "made", "$LATEST", "made", 64, "0a-1b", "/aws/lambda/made", True, None, {"subject": "a/b"}, None,
        ]  # fmt: skip
        assert told[11] == "raw bytes"
        told = json.loads(one.done("", b"[1]", kind="invoke", context=b'{"custom":"c","env":{"e":1}}') or b"")
        assert told[8:] == ["c", {"e": 1}, None, [1]]
        assert json.loads(one.done("t", b"1", context=b"}{") or b"")[8] == {"subject": "t"}


def test_a_schedule_is_the_event_that_eventbridge_sends(tmp_path: Path) -> None:
    with worker(tmp_path, "def handler(event, context): return event", handler="handler") as one:
        one.ready()
        event = json.loads(one.done("", b"", kind="schedule", time_ms=1_700_000_000_000, request="0a-1b") or b"")
        assert event["id"] == "0a-1b"
        assert (event["detail-type"], event["time"], event["detail"]) == ("Scheduled Event", "2023-11-14T22:13:20Z", {})


def test_a_copy_of_the_sdk_beside_the_code_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "greengrasssdk").mkdir()
    (tmp_path / "greengrasssdk/__init__.py").write_text("raise RuntimeError('this one looks for a core')")
    code = "import greengrasssdk\ndef handler(event, context): return greengrasssdk.__version__"
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        assert one.done() == b"1.6.1"


INVOKING = """
    import base64, json
    import greengrasssdk
    from greengrasssdk.Lambda import InvocationException

    client = greengrasssdk.client("lambda")

    def handler(event, context):
        try:
            answer = client.invoke(
                ClientContext=base64.b64encode(b'{"custom":"text"}'),
                FunctionName="arn:aws:lambda:eu-west-1:123456789012:function:other:3",
                InvocationType=event,
                Payload=b"data",
            )
        except InvocationException as error:
            return str(error)
        payload = answer["Payload"]
        return [answer["FunctionError"], (payload if isinstance(payload, bytes) else payload.read()).decode()]
"""


@pytest.mark.parametrize(
    ("kind", "reply", "returned"),
    [
        ("RequestResponse", wire.Reply(1, payload=b"result"), ["", "result"]),
        ("Event", None, ["", ""]),
        (
            "RequestResponse",
            wire.Reply(1, ok=False, error="KeyError", message="'a'"),
            ["Unhandled", '{"errorType": "KeyError", "errorMessage": "\'a\'"}'],
        ),
        (
            "RequestResponse",
            wire.Reply(1, ok=False, error="not_found", message="no function other"),
            "Failed to invoke function due to not_found: no function other",
        ),
    ],
)
def test_another_function_is_invoked(tmp_path: Path, kind: str, reply: wire.Reply | None, returned: object) -> None:
    with worker(tmp_path, INVOKING, lambda _: reply or wire.Reply(0), handler="handler") as one:
        one.ready()
        result = one.done(payload=json.dumps(kind).encode(), id=6) or b""
        assert (json.loads(result) if result.startswith(b"[") else result.decode()) == returned
        expected = wire.Invoke(1 if reply else 0, 6, "other", b"data", b'{"custom":"text"}')
        if not reply:
            while not one.requests:
                one.request()
        assert one.requests == [expected]


def test_a_granted_secret_is_read_by_name_or_arn(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    code = """
        import greengrasssdk
        from greengrasssdk.SecretsManager import SecretsManagerError

        client = greengrasssdk.client("secretsmanager")

        def handler(event, context):
            try:
                return client.get_secret_value(**event)["SecretString"]
            except SecretsManagerError as error:
                return "refused: " + str(error)
    """
    with worker(tmp_path, code, handler="handler", secrets={"token": str(tmp_path / "token")}) as one:
        one.ready()

        def ask(**given: str) -> bytes:
            return one.done(payload=json.dumps(given).encode()) or b""

        assert ask(SecretId="token") == b"s3cret"
        assert ask(SecretId="arn:aws:secretsmanager:eu-west-1:1:secret:token-AbCdEf") == b"s3cret"
        assert ask(SecretId="token", VersionStage="AWSCURRENT") == b"s3cret"
        assert ask(SecretId="other").startswith(b"refused: Request for secret value returned error code Resource")
        assert ask(SecretId="token", VersionId="1").startswith(b"refused: Query by VersionId")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("sdk.client('iot-data').publish(payload=b'')", "ValueError"),
        ("sdk.client('iot-data').publish(topic='a', payload=3)", "TypeError"),
        ("sdk.client('iot-data').publish(topic='a/#', payload=b'')", "ValueError"),
        ("sdk.client('iot-data').publish(topic='a', queueFullPolicy='Never')", "ValueError"),
        ("sdk.client('iot-data').get_thing_shadow()", "ValueError"),
        ("sdk.client('iot-data').update_thing_shadow(thingName='a')", "ValueError"),
        ("sdk.client('lambda').invoke(Payload=b'')", "ValueError"),
        ("sdk.client('lambda').invoke(FunctionName='f', ClientContext='text')", "ValueError"),
        ("sdk.client('lambda').invoke(FunctionName='f', ClientContext=b'#')", "ValueError"),
        ("sdk.client('lambda').invoke(FunctionName='f', InvocationType='DryRun')", "ValueError"),
        ("sdk.client('secretsmanager').get_secret_value()", "ValueError"),
        ("sdk.client('s3')", "Exception"),
    ],
)
def test_wrong_arguments_raise_what_the_sdk_raises(tmp_path: Path, line: str, error: str) -> None:
    code = f"import greengrasssdk as sdk\ndef handler(event, context): {line}"
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        assert one.failed().error == error
        assert one.requests == []


def test_payloads_may_be_files(tmp_path: Path) -> None:
    code = """
        import io
        import greengrasssdk
        def handler(event, context):
            greengrasssdk.client("iot-data").publish(topic="out/a", payload=io.BytesIO(b"read"))
    """
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        one.done()
        assert one.requests == [wire.Publish(0, 1, "out/a", b"read")]
