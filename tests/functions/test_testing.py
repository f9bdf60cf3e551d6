"""The harness for functions' own unit tests, as its users use it."""

import json
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from edge import Message, RequestDenied, RequestFailed, on, publish
from edge.functions.program import HandlerMissing
from edge.functions.testing import Gateway

WARN = """
    import os
    from edge import Message, apublish, every, invoke, on, publish, secret, shadow

    seen = 0

    @on("dt/+/temp")
    def warn(message: Message):
        global seen
        seen += 1
        if message.json()["c"] > shadow.get("limits")["state"]["reported"]["c"]:
            publish("alarm/hot", {"topic": message.topic, "by": secret("TOKEN"), "in": os.environ["PLACE"]})
        return seen

    @on("ask")
    async def ask(message: Message):
        await apublish("asked", message.text)
        await shadow.aupdate(reported={"asked": True})
        return {"to": message.response_topic}

    @every("10 s")
    def tick():
        return invoke("other", {"n": 1})

    @on("beyond")
    def beyond():
        publish("elsewhere", b"")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "warn.py"
    path.write_text(dedent(WARN))
    return path


def gateway(file: Path) -> Gateway:
    return Gateway(
        file,
        publish=["alarm/#", "asked"],
        environment={"PLACE": "cellar"},
        secrets={"TOKEN": "s3cret"},
        shadows={"limits": {"state": {"reported": {"c": 80}}}},
        invoked={"other": lambda payload: payload + b"!"},
    )


def test_a_function_is_loaded_and_sent_messages(file: Path) -> None:
    with gateway(file) as one:
        assert one.send("dt/b1/temp", {"c": 79}) == 1
        assert one.send("dt/b1/temp", b'{"c":81}') == 2
        assert one.published == [("alarm/hot", {"topic": "dt/b1/temp", "by": "s3cret", "in": "cellar"})]
        assert one.send("ask", "hello", response_topic="answers") == {"to": "answers"}
        assert one.published[1:] == [("asked", b"hello")]
        assert one.shadows[""] == {"state": {"reported": {"asked": True}}, "version": 1}
        assert one.tick("tick") == one.tick() == b'{"n":1}!'
        with pytest.raises(RequestDenied, match="elsewhere is not among"):
            one.send("beyond")
        with pytest.raises(HandlerMissing):
            one.send("dt/b1/light")


def test_each_with_begins_anew_and_leaves_nothing_behind(file: Path) -> None:
    before = list(sys.path), list(sys.meta_path), dict(os.environ), set(sys.modules)
    for _ in range(2):
        with gateway(file) as one:
            assert one.send("dt/b1/temp", {"c": 79}) == 1
    assert before == (list(sys.path), list(sys.meta_path), dict(os.environ), set(sys.modules))
    with pytest.raises(RequestFailed, match="in a test: with"):
        publish("a", b"")


def test_code_that_cannot_be_loaded_raises_what_it_raises(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise ValueError('at import')")
    before = list(sys.path)
    with pytest.raises(ValueError, match="at import"), Gateway(tmp_path / "bad.py"):
        pass
    assert sys.path == before


def test_handlers_may_be_called_by_themselves() -> None:
    @on("dt/+/temp")
    def double(message: Message) -> None:
        publish("doubled", message.json()["c"] * 2)

    with Gateway() as one:
        double(Message("dt/b1/temp", b'{"c":2}'))
        assert one.published == [("doubled", 4)]


def test_functions_in_lambdas_manner_run_too(tmp_path: Path) -> None:
    (tmp_path / "lambda_function.py").write_text(
        dedent("""
            import greengrasssdk
            client = greengrasssdk.client("iot-data")

            def lambda_handler(event, context):
                client.publish(topic=context.client_context.custom["subject"], payload=b"back")
                client.update_thing_shadow(thingName="a", payload=b'{"state":{"desired":{"x":1}}}')
                return [event, client.get_thing_shadow(thingName="a")["payload"].decode()]
        """)
    )
    with Gateway(tmp_path, handler="lambda_function.lambda_handler") as one:
        event, document = one.send("in", {"n": 1})
        assert event == {"n": 1}
        assert json.loads(document) == {"state": {"desired": {"x": 1}}, "version": 1}
        assert one.published == [("in", b"back")]
    assert not any(name.startswith("greengrasssdk") for name in sys.modules)
