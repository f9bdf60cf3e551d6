"""The gateway on UDP, judged by a client written from the standard's bytes alone (MQTT-SN 1.2, clause 5)."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence

import msgspec
import pytest

from edge.boards.gateway import Gateway
from edge.boards.udp import UdpClients
from edge.config import BoardSettings, MqttSnSettings, UdpSettings
from edge.messages import Message, Origin
from edge.metrics import Metrics


class RawClient:
    """Knows bytes, not EdgeLoop: each method sends one message and returns the answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.connect(address)

    def send(self, kind: int, body: bytes = b"") -> None:
        size = len(body) + 2
        head = bytes((size,)) if size < 256 else b"\x01" + (size + 2).to_bytes(2, "big")
        self.socket.send(head + bytes((kind,)) + body)

    async def receive(self) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65536), 5)

    async def ask(self, kind: int, body: bytes = b"") -> bytes:
        self.send(kind, body)
        return await self.receive()

    async def connect(self, client_id: bytes, flags: int = 0x04) -> None:
        assert await self.ask(0x04, bytes((flags, 1, 0, 30)) + client_id) == b"\x03\x05\x00"

    async def register(self, topic: bytes) -> bytes:
        answer = await self.ask(0x0A, b"\0\0\0\x01" + topic)
        assert (answer[:2], answer[4:]) == (b"\x07\x0b", b"\0\x01\0")
        return answer[2:4]

    async def subscribe(self, topic: bytes, qos: int = 1) -> bytes:
        answer = await self.ask(0x12, bytes((qos << 5, 0, 2)) + topic)
        assert (answer[:3], answer[5:]) == (bytes((8, 0x13, qos << 5)), b"\0\x02\0")
        return answer[3:5]

    def close(self) -> None:
        self.socket.close()


class House:
    """A gateway on a free UDP port of the loopback; what is published comes back to subscribers."""

    def __init__(self, addresses_max: int = 256, host: str = "127.0.0.1") -> None:
        self.metrics = Metrics()
        self.taken: list[tuple[str, str, Message]] = []
        self.batches = 0
        boards = [BoardSettings(name="b1", port="/dev/b1")]
        clock = lambda: self.loop.time()  # noqa: E731, PLW0108 (no loop yet)
        self.gateway = Gateway(MqttSnSettings(), boards, self.route, self.metrics, clock)
        settings = UdpSettings(host=host, port=1, predefined={"5": "pre/five"}, addresses_max=addresses_max)
        self.udp = UdpClients(msgspec.structs.replace(settings, port=0), self.gateway, self.metrics)
        self.clients: list[RawClient] = []

    def route(self, source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        self.batches += 1
        self.taken += [(source, sender, one) for one in messages]
        self.gateway.target("udp").send(messages, origin)

    def client(self) -> RawClient:
        assert self.udp.address is not None
        self.clients.append(RawClient(("127.0.0.1", int(self.udp.address[1]))))
        return self.clients[-1]

    def run(self, test: Callable[[], Coroutine[None, None, None]]) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(self.udp.run())
            try:
                while self.udp.address is None:
                    await asyncio.sleep(0.01)
                await test()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                for client in self.clients:
                    client.close()

        asyncio.run(main())


def test_a_stock_client_connects_publishes_and_subscribes() -> None:
    house = House()

    async def test() -> None:
        one, two = house.client(), house.client()
        assert await one.ask(0x01, b"\0") == b"\x03\x02\x01"
        await one.connect(b"sensor")
        await two.connect(b"display")
        topic_id = await two.subscribe(b"t/1")
        mine = await one.register(b"t/1")
        one.send(0x0C, b"\x20" + mine + b"\0\x07" + b"hello")
        published = await two.receive()
        assert published[:3] == b"\x0c\x0c\x20"
        assert (published[3:5], published[7:]) == (topic_id, b"hello")
        two.send(0x0D, published[3:7] + b"\0")
        assert await one.receive() == b"\x07\x0d" + mine + b"\0\x07\0"
        assert await one.ask(0x16) == b"\x02\x17"
        assert await one.ask(0x18) == b"\x02\x18"

    house.run(test)
    assert [(source, sender, one.topic) for source, sender, one in house.taken] == [("udp", "sensor", "t/1")]


def test_qos_minus_1_comes_from_anywhere() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        client.send(0x0C, b"\x61\0\x05\0\0quiet")
        assert await client.ask(0x01, b"\0") == b"\x03\x02\x01"

    house.run(test)
    assert [(sender, one.topic, one.payload) for _, sender, one in house.taken] == [("", "pre/five", b"quiet")]


def test_a_client_that_comes_back_from_another_address_replaces_the_former() -> None:
    house = House()

    async def test() -> None:
        one, two = house.client(), house.client()
        await one.connect(b"roamer")
        await two.connect(b"roamer")
        assert await one.ask(0x16) == b"\x02\x18"
        assert await two.ask(0x16) == b"\x02\x17"

    house.run(test)
    assert len(house.gateway.clients()) == 1


def test_a_boards_id_is_not_for_the_network() -> None:
    house = House()

    async def test() -> None:
        assert await house.client().ask(0x04, b"\x04\x01\x00\x1eb1") == b"\x03\x05\x03"

    house.run(test)
    assert house.metrics.counter("mqttsn_rejected", board="udp", reason="client_id_foreign").value == 1


def test_addresses_are_bounded() -> None:
    house = House(addresses_max=2)

    async def test() -> None:
        for n in range(2):
            await house.client().connect(b"c%d" % n)
        assert await house.client().ask(0x04, b"\x04\x01\x00\x1ec9") == b"\x03\x05\x01"

    house.run(test)


def test_several_datagrams_of_one_turn_are_one_batch() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        await client.connect(b"burst")
        topic_id = await client.register(b"t")
        house.batches = 0
        for _ in range(20):
            client.send(0x0C, b"\x00" + topic_id + b"\0\0x")
        assert await client.ask(0x16) == b"\x02\x17"

    house.run(test)
    assert len(house.taken) == 20
    assert house.batches <= 2


def test_a_message_of_255_and_256_bytes_and_a_topic_of_60_kilobytes_pass_or_are_refused_by_length_alone() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        await client.connect(b"long")
        topic_id = await client.register(b"t")
        for size in (247, 248, 249, 250, 251, 60_000):
            answer = await client.ask(0x0C, b"\x20" + topic_id + b"\0\x01" + b"x" * size)
            assert answer == b"\x07\x0d" + topic_id + b"\0\x01\0"
        await client.register(b"y" * 60_000)

    house.run(test)
    assert [len(one.payload) for _, _, one in house.taken] == [247, 248, 249, 250, 251, 60_000]


def test_forwarded_clients_over_udp() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        connect = b"\x0a\x04\x04\x01\x00\x1enode"
        client.socket.send(b"\x05\xfe\x00\x11\x22" + connect)
        assert await client.receive() == b"\x05\xfe\x00\x11\x22" + b"\x03\x05\x00"

    house.run(test)


def test_garbage_is_counted_and_harms_nobody() -> None:
    house = House()

    async def test() -> None:
        client, vandal = house.client(), house.client()
        await client.connect(b"good")
        for n in range(300):
            vandal.socket.send(bytes((n & 0xFF,)) * (n % 40 + 1))
            await asyncio.sleep(0)
        vandal.close()
        assert await client.ask(0x16) == b"\x02\x17"

    house.run(test)
    rejected = {name: count for name, count in house.metrics.snapshot().items() if name.startswith("mqttsn_rejected")}
    assert sum(rejected.values()) >= 250


def test_an_address_in_use_is_told_with_the_remedy_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        metrics = Metrics()
        gateway = Gateway(MqttSnSettings(), [], lambda *_: None, metrics, lambda: 0.0)
        udp = UdpClients(UdpSettings(host="127.0.0.1", port=port), gateway, metrics)

        async def test() -> None:
            task = asyncio.ensure_future(udp.run())
            while not caplog.records:
                await asyncio.sleep(0.01)
            taken.close()
            while udp.address is None:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(asyncio.wait_for(test(), 10))
    events = [(one.getMessage(), one.__dict__["fields"]) for one in caplog.records if one.name == "edge.boards.udp"]
    assert events[0][0] == "udp_failed"
    assert f"UDP 127.0.0.1:{port}" in events[0][1]["problem"]
    assert "Free the port" in events[0][1]["remedy"]
    assert [name for name, _ in events].count("udp_failed") == 1
