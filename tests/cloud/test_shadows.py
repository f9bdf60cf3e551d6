"""Shadows over every connection, and their pure part."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edge.cloud.aws import AwsConnection
from edge.cloud.codec import CodecConnection
from edge.cloud.connection import Connection
from edge.cloud.shadows import Asked, ShadowFailed, Shadows, answered, ask, is_answer
from edge.config import ConnectionSettings
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge_tools.mosquitto import THING_ACL, Mosquitto, user_acl
from edge_tools.pki import Credential
from tests.clock import run_virtual
from tests.cloud.worlds import Ledger, running, until
from tests.fakes.connection import FakeCloud, FakeConnection
from tests.fakes.shadows import FakeShadows


class World:
    """connection: the gateway's. service: what answers behind the broker."""

    def __init__(self, connection: Connection, service: FakeShadows, responder: Connection | None) -> None:
        self.connection, self.service, self.responder = connection, service, responder

    @contextlib.asynccontextmanager
    async def shadows(self, **settings: Any) -> AsyncIterator[Shadows]:
        async with contextlib.AsyncExitStack() as stack:
            for one in (self.responder, self.connection):
                if one is not None:
                    await stack.enter_async_context(running(one))
            await until(lambda: self.connection.state.connected)
            yield Shadows(self.connection, "gateway-1", **settings)


@pytest.fixture(params=["codec 5", "codec 3.1.1", "aws", "fake"])
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server_credential: Credential,
    thing_credential: Credential,
    observer_credential: Credential,
) -> Iterator[World]:
    service = FakeShadows()
    if request.param == "fake":
        cloud = FakeCloud()
        yield World(FakeConnection(cloud), service, responder(cloud, service))
        return
    acl = [*user_acl("observer", "readwrite $aws/#"), *THING_ACL]
    with Mosquitto(tmp_path / "cloud", plain=False, tls=server_credential, acl=acl) as broker:
        settings = ConnectionSettings(
            host="localhost",
            port=broker.tls_port,
            client_id="gateway-1",
            protocol="3.1.1" if request.param == "codec 3.1.1" else "5",
            ca=str(thing_credential.ca),
            certificate=str(thing_credential.certificate),
            key=str(thing_credential.key),
        )
        kind = AwsConnection if request.param == "aws" else CodecConnection
        client = serve(broker.tls_port, observer_credential, service)
        yield World(kind(settings, Metrics()), service, None)
        client.disconnect()
        client.loop_stop()


def serve(port: int, credential: Credential, service: FakeShadows) -> paho.Client:
    """The service behind a real broker, on an independent client, in its own thread."""
    subscribed = threading.Event()

    def on_message(client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if said := service.answer(message.topic, bytes(message.payload)):
            client.publish(*said, qos=1)

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe("$aws/things/+/shadow/#", 1)

    client = paho.Client(CallbackAPIVersion.VERSION2, "observer")
    client.tls_set(str(credential.ca), str(credential.certificate), str(credential.key))
    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_connect = on_connect
    client.connect("localhost", port)
    client.loop_start()
    assert subscribed.wait(20)
    return client


def responder(cloud: FakeCloud, service: FakeShadows) -> FakeConnection:
    connection = FakeConnection(cloud, "observer")

    def receive(messages: Sequence[Message], origin: Origin) -> None:
        for message in messages:
            if said := service.answer(message.topic, message.payload):
                connection.send([Message(*said, qos=1)], Ledger())
            origin.settled([message.receipt], Outcome.TAKEN)

    connection.subscribe(["$aws/things/+/shadow/#"], receive)
    return connection


def value(document: bytes) -> dict[str, Any]:
    found = json.loads(document)
    assert "clientToken" not in found
    return dict(found)


def test_a_shadow_is_written_read_and_removed(world: World) -> None:
    async def main() -> None:
        async with world.shadows() as shadows:
            for name in ("", "config"):
                with pytest.raises(ShadowFailed, match="No shadow exists") as failed:
                    await shadows.get("gateway-1", name)
                assert (failed.value.error, failed.value.status) == ("not_found", 404)
                said = await shadows.update("gateway-1", b'{"state":{"reported":{"a":1,"b":2}}}', name)
                assert value(said)["version"] == 1
                await shadows.update("gateway-1", b'{"state":{"reported":{"b":null},"desired":{"c":[3]}}}', name)
                found = value(await shadows.get("gateway-1", name))
                assert found["state"] == {"reported": {"a": 1}, "desired": {"c": [3]}}
                assert found["version"] == 2
                assert value(await shadows.delete("gateway-1", name))["version"] == 2
            assert world.service.documents == {}

    asyncio.run(main())


def test_what_the_service_rejects_has_its_reason(world: World) -> None:
    async def main() -> None:
        async with world.shadows() as shadows:
            await shadows.update("gateway-1", b'{"state":{"reported":1}}')
            with pytest.raises(ShadowFailed) as failed:
                await shadows.update("gateway-1", b'{"state":{"reported":2},"version":7}')
            assert (failed.value.error, failed.value.status) == ("conflict", 409)
            with pytest.raises(ShadowFailed) as failed:
                await shadows.update("gateway-1", b'{"state":{"reported":"%s"}}' % (b"x" * 9000))
            assert (failed.value.error, failed.value.status) == ("too_large", 413)
            for code, error in ((400, "invalid"), (403, "denied"), (429, "congested"), (500, "unavailable")):
                world.service.rejects = code
                with pytest.raises(ShadowFailed, match="as wished") as failed:
                    await shadows.get("gateway-1")
                assert failed.value.error == error

    asyncio.run(main())


def test_many_requests_at_once_get_each_its_own_answer(world: World) -> None:
    async def main() -> None:
        async with world.shadows() as shadows:
            updates = [b'{"state":{"reported":{"n%d":%d}},"clientToken":"own-%d"}' % (n, n, n) for n in range(30)]
            answers = [
                json.loads(one) for one in await asyncio.gather(*(shadows.update("gateway-1", u) for u in updates))
            ]
            assert [one["state"]["reported"] for one in answers] == [{f"n{n}": n} for n in range(30)]
            assert [one["clientToken"] for one in answers] == [f"own-{n}" for n in range(30)]
            assert sorted(one["version"] for one in answers) == list(range(1, 31))

    asyncio.run(main())


def test_a_silent_service_is_an_error_within_the_timeout(world: World) -> None:
    async def main() -> None:
        async with world.shadows(timeout_s=0.5) as shadows:
            world.service.silent = True
            with pytest.raises(ShadowFailed, match="no answer") as failed:
                await shadows.get("gateway-1")
            assert failed.value.error == "timeout"

    asyncio.run(main())


def test_while_the_cloud_is_away_nothing_is_sent_and_the_reason_told() -> None:
    async def main() -> None:
        cloud, service = FakeCloud(), FakeShadows()
        connection = FakeConnection(cloud)
        cloud.down()
        async with running(connection), running(responder(cloud, service)):
            shadows = Shadows(connection, "gateway-1", timeout_s=5.0)
            start = asyncio.get_running_loop().time()
            with pytest.raises(ShadowFailed, match="the cloud is away") as failed:
                await shadows.update("gateway-1", b'{"state":{}}')
            assert failed.value.error == "unavailable"
            assert 5.0 <= asyncio.get_running_loop().time() - start < 5.3
            async with asyncio.TaskGroup() as group:
                update = group.create_task(shadows.update("gateway-1", b'{"state":{"reported":1}}'))
                await asyncio.sleep(2)
                cloud.up()
            assert value(update.result())["version"] == 1
        assert len([m for m in cloud.received if m.topic.endswith("/update")]) == 1

    run_virtual(main())


@pytest.mark.parametrize("away", [True, False])
def test_who_has_less_time_is_told_sooner(away: bool) -> None:
    async def main() -> None:
        cloud, service = FakeCloud(), FakeShadows()
        service.silent = True
        connection = FakeConnection(cloud)
        if away:
            cloud.down()
        async with running(connection), running(responder(cloud, service)):
            if not away:
                await until(lambda: connection.state.connected)
            start = asyncio.get_running_loop().time()
            with pytest.raises(ShadowFailed) as failed:
                await Shadows(connection, "gateway-1").request("get", "gateway-1", patience_s=0.25)
            assert failed.value.error == ("unavailable" if away else "timeout")
            assert asyncio.get_running_loop().time() - start < 0.3

    run_virtual(main())


def test_without_a_cloud_there_are_no_shadows() -> None:
    async def main() -> None:
        with pytest.raises(ShadowFailed, match=r"no \[cloud\]"):
            await Shadows(None, "gateway-1").get("gateway-1")

    asyncio.run(main())


def test_more_shadows_than_subscriptions_are_asked_for_one_after_the_other(world: World) -> None:
    async def main() -> None:
        async with world.shadows(answered_max=2) as shadows:
            for _ in range(2):
                for name in ("", "a", "b", "c"):
                    await shadows.update("gateway-1", b'{"state":{"reported":{"a":1}}}', name)
                    assert json.loads(await shadows.get("gateway-1", name))["state"] == {"reported": {"a": 1}}
            exchange = world.connection._exchange  # type: ignore[attr-defined]
            kept = {f"$aws/things/gateway-1/shadow/name/c/{action}" for action in ("update", "get")}
            wanted = {f"{topic}/{answer}" for topic in kept for answer in ("accepted", "rejected")}
            assert set(exchange.subscriptions._granted) == wanted
            await until(lambda: not exchange.subscriptions._leaving)

    asyncio.run(main())


def test_no_more_shadows_are_asked_for_at_once_than_there_are_subscriptions() -> None:
    async def main() -> None:
        cloud, service = FakeCloud(), FakeShadows()
        connection = FakeConnection(cloud)
        async with running(connection), running(responder(cloud, service)):
            shadows = Shadows(connection, "gateway-1", answered_max=2)
            cloud.down()
            asking = [asyncio.create_task(shadows.update(thing, b'{"state":{}}')) for thing in ("a", "b", "a")]
            await asyncio.sleep(0.1)
            with pytest.raises(ShadowFailed, match="too_many"):
                await shadows.update("c", b'{"state":{}}')
            cloud.up()
            await asyncio.gather(*asking)
            await shadows.update("c", b'{"state":{}}')

    run_virtual(main())


@pytest.mark.parametrize(
    ("thing", "name", "payload"),
    [
        ("", "", b"{}"),
        ("a/b", "", b"{}"),
        ("+", "", b"{}"),
        ("t" * 129, "", b"{}"),
        ("é", "", b"{}"),
        ("t\n", "", b"{}"),
        ("t", "#", b"{}"),
        ("t", "n" * 65, b"{}"),
        ("t", "", b""),
        ("t", "", b"[]"),
        ("t", "", b'{"state":'),
        ("t", "", b"\xff"),
        ("t", "", b'{"a":' * 100_000),
    ],
)
def test_what_is_no_shadow_request_is_not_sent(thing: str, name: str, payload: bytes) -> None:
    with pytest.raises(ShadowFailed, match="invalid"):
        ask("update", thing, name, payload, "token")


def test_the_topics_are_those_of_aws() -> None:
    assert ask("get", "t", "", b"", "k") == Asked(
        "$aws/things/t/shadow/get",
        b'{"clientToken":"k"}',
        "$aws/things/t/shadow/get/accepted",
        "$aws/things/t/shadow/get/rejected",
        "k",
    )
    assert ask("delete", "t", "n", b"", "k").topic == "$aws/things/t/shadow/name/n/delete"
    assert ask("update", "t", "", b'{"state":{"reported":1.50},"clientToken":"x"}', "k").payload == (
        b'{"state":{"reported":1.50},"clientToken":"k"}'
    )


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(msgspec.json.encode))
def test_any_answer_is_a_document_or_a_failure(payload: bytes) -> None:
    asked = ask("get", "t", "", b"", "k")
    assert not is_answer(asked, "elsewhere", payload)
    is_answer(asked, asked.accepted, payload)
    for topic in (asked.accepted, asked.rejected):
        try:
            assert isinstance(json.loads(answered(asked, topic, payload)), dict)
        except ShadowFailed as failed:
            assert failed.error
