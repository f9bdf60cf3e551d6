"""The standard's services as a stock client on UDP uses them, octet by octet (MQTT-SN 1.2, clauses 5 and 6)."""

import asyncio
import socket

import pytest

from edge.messages import Message
from tests.boards.test_udp import House, RawClient

CONNACK = b"\x03\x05\x00"


def send(house: House, *messages: Message) -> None:
    house.gateway.target("udp").send(messages, house.gateway._wills)


async def drain_register(client: RawClient, topic: bytes) -> bytes:
    """Take the gateway's REGISTER, acknowledge it, and give the topic id."""
    register = await client.receive()
    assert (register[1], register[6:]) == (0x0A, topic)
    client.send(0x0B, register[2:6] + b"\0")
    return register[2:4]


def test_a_will_is_given_updated_and_published_when_the_client_falls_silent() -> None:
    house = House()

    async def test() -> None:
        watcher, client = house.client(), house.client()
        await watcher.connect(b"watcher")
        await watcher.subscribe(b"gone/now")
        assert await client.ask(0x04, b"\x0c\x01\x00\x01mortal") == b"\x02\x06"
        assert await client.ask(0x07, b"\x20gone/first") == b"\x02\x08"
        assert await client.ask(0x09, b"old") == CONNACK
        assert await client.ask(0x09, b"old") == CONNACK, "a repeat"
        assert await client.ask(0x1A, b"\x20gone/now") == b"\x03\x1b\x00"
        assert await client.ask(0x1C, b"new") == b"\x03\x1d\x00"
        publish = await watcher.receive()
        assert (publish[1:3], publish[7:]) == (b"\x0c\x20", b"new")

    house.run(test)


def test_a_sleeper_gets_what_waited_between_its_pingreq_and_the_pingresp() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        await client.connect(b"dozer")
        topic_id = await client.subscribe(b"t/1")
        assert await client.ask(0x18, b"\0\x3c") == b"\x02\x18"
        send(house, Message("t/1", b"one", 1), Message("t/1", b"two", 0))
        client.send(0x16, b"dozer")
        publish = await client.receive()
        assert (publish[1:5], publish[7:]) == (b"\x0c\x20" + topic_id, b"one")
        second = await client.receive()
        assert (second[1:7], second[7:]) == (b"\x0c\0" + topic_id + b"\0\0", b"two")
        again = await client.ask(0x16, b"dozer")
        assert again == publish[:2] + b"\xa0" + publish[3:], "repeated, with DUP"
        client.send(0x0D, publish[3:7] + b"\0")
        assert await client.receive() == b"\x02\x17"
        assert await client.ask(0x18, b"\0\x3c") == b"\x02\x18", "still asleep, for longer"
        assert await client.ask(0x18) == b"\x02\x18", "and away without waking"
        assert await client.ask(0x16) == b"\x02\x18"

    house.run(test)


def test_a_filter_brings_suback_0_and_a_register_before_each_new_topic() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        await client.connect(b"display")
        assert await client.subscribe(b"t/#") == b"\0\0"
        send(house, Message("t/1", b"one"), Message("t/2", b"two"), Message("t/1", b"three"))
        first = await drain_register(client, b"t/1")
        publish = await client.receive()
        assert (publish[3:5], publish[7:]) == (first, b"one")
        register = await client.receive()
        assert register[6:] == b"t/2"
        client.send(0x0B, register[2:6] + b"\x02")  # rejected: invalid topic id
        publish = await client.receive()
        assert (publish[3:5], publish[7:]) == (first, b"three"), "only what was refused is left out"

    house.run(test)
    assert house.metrics.counter("messages_dropped", reason="refused_by_client").value == 1


def test_qos_2_goes_four_steps_both_ways() -> None:
    house = House()

    async def test() -> None:
        one, two = house.client(), house.client()
        await one.connect(b"one")
        await two.connect(b"two")
        theirs = await two.subscribe(b"t", 2)
        mine = await one.register(b"t")
        one.send(0x0C, b"\x40" + mine + b"\0\x07exact")
        publish = await two.receive()
        assert (publish[2:5], publish[7:]) == (b"\x40" + theirs, b"exact")
        message_id = publish[5:7]
        assert await two.ask(0x0F, message_id) == b"\x04\x10" + message_id
        assert await two.ask(0x0F, message_id) == b"\x04\x10" + message_id
        two.send(0x0E, message_id)
        assert await one.receive() == b"\x04\x0f\0\x07", "PUBREC when the other has it"
        one.send(0x0C, b"\xc0" + mine + b"\0\x07exact")
        assert await one.receive() == b"\x04\x0f\0\x07", "a repeat is answered and not handed on"
        assert await one.ask(0x10, b"\0\x07") == b"\x04\x0e\0\x07"
        assert await one.ask(0x10, b"\0\x07") == b"\x04\x0e\0\x07"

    house.run(test)
    assert len(house.taken) == 1


def test_predefined_and_short_topics_go_both_ways() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        await client.connect(b"both")
        assert await client.ask(0x12, b"\x21\0\x03\0\x05") == b"\x08\x13\x20\0\x05\0\x03\0"
        assert await client.ask(0x12, b"\x22\0\x04xy") == b"\x08\x13\x20\0\0\0\x04\0"
        client.send(0x0C, b"\x01\0\x05\0\0pre")
        assert await client.receive() == b"\x0a\x0c\x01\0\x05\0\0pre"
        client.send(0x0C, b"\x02xy\0\0short")
        assert await client.receive() == b"\x0c\x0c\x02xy\0\0short"
        assert await client.ask(0x14, b"\x01\0\x05\0\x05") == b"\x04\x15\0\x05"
        assert await client.ask(0x14, b"\x02\0\x06xy") == b"\x04\x15\0\x06"
        client.send(0x0C, b"\x02xy\0\0nobody")
        assert await client.ask(0x16) == b"\x02\x17"

    house.run(test)


def test_a_retained_message_comes_on_subscribing_with_the_retain_flag() -> None:
    house = House()

    async def test() -> None:
        one, two = house.client(), house.client()
        await one.connect(b"one")
        mine = await one.register(b"state")
        one.send(0x0C, b"\x30" + mine + b"\0\x07on")
        assert await one.receive() == b"\x07\x0d" + mine + b"\0\x07\0"
        await two.connect(b"two")
        theirs = await two.subscribe(b"state")
        publish = await two.receive()
        assert (publish[1:5], publish[7:]) == (b"\x0c\x30" + theirs, b"on")

    house.run(test)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_unknown_topic_id_is_answered_by_a_puback_that_says_so(qos: int) -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        await client.connect(b"lost")
        message_id = b"\0\x09" if qos else b"\0\0"
        answer = await client.ask(0x0C, bytes((qos << 5,)) + b"\0\x63" + message_id + b"x")
        assert answer == b"\x07\x0d\0\x63" + message_id + b"\x02"
        answer = await client.ask(0x0C, bytes((qos << 5 | 1,)) + b"\0\x63" + message_id + b"x")
        assert answer == b"\x07\x0d\0\x63" + message_id + b"\x02"

    house.run(test)


def test_the_long_length_form_is_taken_for_short_messages_and_used_for_long_ones() -> None:
    house = House()

    async def test() -> None:
        client = house.client()
        client.socket.send(b"\x01\x00\x0b\x04\x04\x01\x00\x1elfm")
        assert await client.receive() == CONNACK
        topic_id = await client.subscribe(b"t", 0)
        for size in (248, 249, 250):
            send(house, Message("t", b"x" * size))
            publish = await client.receive()
            head = bytes((size + 7,)) if size + 7 < 256 else b"\x01" + (size + 9).to_bytes(2, "big")
            assert publish == head + b"\x0c\0" + topic_id + b"\0\0" + b"x" * size

    house.run(test)


def test_searchgw_is_answered_to_whoever_asks_also_by_broadcast() -> None:
    house = House(host="127.255.255.255")

    async def test() -> None:
        client = house.client()
        client.socket.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
            searcher.setblocking(False)
            searcher.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            searcher.bind(("127.0.0.1", 0))
            assert house.udp.address is not None
            searcher.sendto(b"\x03\x01\x00", ("127.255.255.255", int(house.udp.address[1])))
            loop = asyncio.get_running_loop()
            answer = await asyncio.wait_for(loop.sock_recv(searcher, 100), 5)
            assert answer == b"\x03\x02\x01"

    house.run(test)


def test_a_client_without_keep_alive_keeps_its_place_only_until_another_needs_it() -> None:
    house = House(addresses_max=2)

    async def test() -> None:
        clients = [house.client() for _ in range(3)]
        for n, client in enumerate(clients[:2]):
            assert await client.ask(0x04, b"\x04\x01\x00\x00p%d" % n) == CONNACK
        assert await clients[2].ask(0x04, b"\x04\x01\x00\x1ep9") == b"\x03\x05\x01"
        for known in house.udp._link.clients.values():
            known.heard -= 1000 if known.id == "p1" else 100
        assert await clients[2].ask(0x04, b"\x04\x01\x00\x1ep9") == CONNACK
        assert await clients[1].receive() == b"\x02\x18", "it is told, and may come again"
        assert await clients[0].ask(0x16) == b"\x02\x17"

    house.run(test)
    assert house.metrics.counter("sessions_evicted", board="udp").value == 1
