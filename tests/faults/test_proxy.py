"""The proxy itself: it does what it is told and nothing else."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.held_port import HOST
from tests.faults.loop_thread import LoopThread
from tests.faults.proxy import Proxy
from tests.faults.waiting import wait_until


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of a server that sends everything back."""
    thread = LoopThread("echo")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = thread.run(asyncio.start_server(echo, HOST, 0))
    found = Proxy(server.sockets[0].getsockname()[1])
    yield found
    found.close()
    thread.call(server.close)
    thread.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=60)


def take(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def test_it_carries_everything_both_ways(proxy: Proxy) -> None:
    data = bytes(range(256)) * 4096
    with connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(data,)).start()
        assert take(client, len(data)) == data
    assert proxy.carried_up == len(data)


def test_a_cut_ends_connections_and_takes_none_until_it_is_restored(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        assert take(client, 3) == b"one"
        proxy.cut()
        assert take(client, 1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.restore()
    with connect(proxy) as client:
        client.sendall(b"two")
        assert take(client, 3) == b"two"


def test_a_reset_is_a_reset(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        assert take(client, 3) == b"one"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert proxy.resets == 2


def test_a_connection_is_reset_within_the_packet_that_reaches_the_bound(proxy: Proxy) -> None:
    proxy.reset_after_bytes = 5
    with connect(proxy) as client:
        client.sendall(b"123456789")
        with pytest.raises(ConnectionResetError):
            take(client, 9)


def test_a_black_hole_swallows_and_keeps_the_connection(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        assert take(client, 3) == b"one"
        proxy.black_hole = True
        client.sendall(b"two")
        wait_until(lambda: proxy.carried_up == 6, "the proxy to take it")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_latency_and_throttling_delay_without_reordering(proxy: Proxy) -> None:
    proxy.latency_s, proxy.bytes_per_s = 0.05, 20_000
    data = bytes(range(250)) * 16
    with connect(proxy) as client:
        began = time.monotonic()
        for start in range(0, len(data), 250):
            client.sendall(data[start : start + 250])
        assert take(client, len(data)) == data
        assert time.monotonic() - began > 0.2
