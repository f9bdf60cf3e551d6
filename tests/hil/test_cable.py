import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import serial

from edge_tools.hil import sockets
from edge_tools.hil.control import Replug, Set, Status, Unplug
from tests.hil.conftest import PATIENCE_S, Bench


def pour(link: socket.socket, data: bytes) -> None:
    """Send without end, until the other side will not have it."""
    for _ in range(100_000):
        link.send(data)


@contextmanager
def poured(bench: Bench) -> Iterator[None]:
    """Both ends write as fast as they can and read all that comes."""
    ended = False

    def board_writes() -> None:
        while not ended:
            bench.board.send(b"U" * 2048)

    def board_reads() -> None:
        while not ended:
            bench.board.recv(4096)

    def gateway_runs() -> None:
        while not ended:
            readable, writable, _ = select.select([bench.gateway], [bench.gateway], [], 1.0)
            if readable:
                os.read(bench.gateway, 4096)
            if writable:
                os.write(bench.gateway, b"x" * 64)

    threads = [Thread(target=run) for run in (board_writes, board_reads, gateway_runs)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended = True
        bench.ask(Set(baud=3_000_000))
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("bench", [9600, 115_200, 3_000_000], indirect=True)
def test_both_directions_keep_the_baud_rate(bench: Bench) -> None:
    with poured(bench):
        before = bench.ask(Status())
        while True:
            after = bench.ask(Status())
            took_s = after.now_s - before.now_s
            if after.up.bytes_out - before.up.bytes_out > 500 and took_s > 0.5:
                break
            select.select([], [], [], 0.05)
    for first, last in ((before.up, after.up), (before.down, after.down)):
        rate = (last.bytes_out - first.bytes_out) / took_s
        assert rate < before.baud / 10 * 1.03
        assert last.busy_s - first.busy_s == pytest.approx((last.bytes_out - first.bytes_out) * 10 / before.baud)
        assert rate > before.baud / 10 * 0.5  # how much of it a busy machine keeps up with is a bench's figure


def test_bytes_pass_unchanged_in_both_directions(bench: Bench) -> None:
    every = bytes(range(256))
    bench.board.sendall(every)
    assert bench.at_gateway(256) == every
    assert os.write(bench.gateway, every) == 256
    assert bench.at_board(256) == every


def test_the_port_opens_with_pyserial_and_survives_being_closed(bench: Bench) -> None:
    for _ in range(2):
        with serial.Serial(str(bench.folder / "port"), 115_200, timeout=PATIENCE_S, exclusive=True) as port:
            bench.board.sendall(b"up")
            assert port.read(2) == b"up"
            port.write(b"down")
            assert bench.at_board(4) == b"down"


def test_unplugging_hangs_up_and_replugging_gives_a_working_port_of_the_same_name(bench: Bench) -> None:
    bench.board.sendall(b"a")
    bench.at_gateway(1)
    assert not bench.ask(Unplug()).plugged
    assert not (bench.folder / "port").exists()
    with pytest.raises(OSError, match="Input/output") as raised:
        os.write(bench.gateway, b"x")
    assert raised.value.errno == errno.EIO
    assert os.read(bench.gateway, 1) == b""

    bench.board.sendall(b"lost")
    while bench.ask(Status()).up.bytes_unheard < 4:
        select.select([], [], [], 0.01)
    assert bench.ask(Replug()).plugged
    os.close(bench.gateway)
    bench.gateway = bench.open_port()
    bench.board.sendall(b"b")
    assert bench.at_gateway(1) == b"b"
    os.write(bench.gateway, b"c")
    assert bench.at_board(1) == b"c"


def test_unplugging_twice_and_replugging_twice_change_nothing(bench: Bench) -> None:
    bench.ask(Unplug())
    assert not bench.ask(Unplug()).plugged
    bench.ask(Replug())
    place = (bench.folder / "port").readlink()
    bench.ask(Replug())
    assert (bench.folder / "port").readlink() == place


def test_a_board_off_the_line_hears_nothing_and_a_new_one_takes_its_place(bench: Bench) -> None:
    bench.board.close()
    while bench.ask(Status()).board_connected:
        select.select([], [], [], 0.01)
    os.write(bench.gateway, b"nobody")
    while bench.ask(Status()).down.bytes_unheard < 6:
        select.select([], [], [], 0.01)
    bench.board = sockets.connect(bench.folder / "uart.sock", PATIENCE_S)
    while not bench.ask(Status()).board_connected:
        select.select([], [], [], 0.01)
    os.write(bench.gateway, b"new")
    assert bench.at_board(3) == b"new"


def test_the_gateway_feels_the_pace_and_nothing_it_could_write_is_lost(bench: Bench) -> None:
    bench.ask(Set(baud=300))
    written = 0
    while select.select([], [bench.gateway], [], 0)[1]:
        try:
            written += os.write(bench.gateway, b"w" * 1024)
        except BlockingIOError:
            break
        assert written < 1_000_000, "the port never pushed back"
    bench.ask(Set(baud=3_000_000))
    assert bench.at_board(written) == b"w" * written


def test_the_board_feels_the_pace(bench: Bench) -> None:
    bench.ask(Set(baud=300))
    bench.board.setblocking(False)
    with pytest.raises(BlockingIOError):
        pour(bench.board, b"w" * 1024)
    assert bench.ask(Status()).up.bytes_in < 200
    bench.board.settimeout(PATIENCE_S)


def test_a_gateway_that_never_reads_loses_bytes_and_they_are_counted(bench: Bench) -> None:
    bench.ask(Set(baud=3_000_000))
    bench.board.sendall(b"n" * 100_000)
    while bench.ask(Status()).up.bytes_out < 100_000:
        select.select([], [], [], 0.05)
    counts = bench.ask(Status()).up
    kept = b""
    while select.select([bench.gateway], [], [], 0.2)[0]:
        kept += os.read(bench.gateway, 65_536)
    assert counts.bytes_overrun > 0
    assert len(kept) == 100_000 - counts.bytes_overrun


def test_a_stalled_board_reads_nothing_until_it_runs_again(bench: Bench) -> None:
    assert bench.ask(Set(stall=True)).stalled
    os.write(bench.gateway, b"held")
    bench.board.sendall(b"up")
    assert bench.at_gateway(2) == b"up"
    assert bench.ask(Status()).down.bytes_in == 0
    bench.ask(Set(stall=False))
    assert bench.at_board(4) == b"held"


def test_noise_hits_the_chosen_direction_alone(bench: Bench) -> None:
    bench.ask(Set(direction="up", byte_loss=1.0))
    bench.board.sendall(b"gone")
    os.write(bench.gateway, b"safe")
    assert bench.at_board(4) == b"safe"
    while bench.ask(Status()).up.bytes_lost < 4:
        select.select([], [], [], 0.01)
    state = bench.ask(Set(direction="up", byte_loss=0.0))
    assert (state.up.bytes_out, state.down.bytes_lost) == (0, 0)
    bench.board.sendall(b"heard")
    assert bench.at_gateway(5) == b"heard"


def test_settings_left_out_stay_as_they_are(bench: Bench) -> None:
    bench.ask(Set(bit_errors=0.25, delay_ms=3))
    state = bench.ask(Set(baud=57_600))
    assert (state.baud, state.noise_up.bit_errors, state.noise_down.delay_ms) == (57_600, 0.25, 3)


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"{}",
        b"[]",
        b"null",
        b"{" * 2000,
        b"[" * 4000,
        b'{"do": "explode"}',
        b'{"do": "status", "more": 1}',
        b'{"do": "set", "baud": 0}',
        b'{"do": "set", "baud": 3000001}',
        b'{"do": "set", "baud": "fast"}',
        b'{"do": "set", "bit_errors": -1}',
        b'{"do": "set", "bit_errors": 1.5}',
        b'{"do": "set", "bit_errors": NaN}',
        b'{"do": "set", "delay_ms": 1e300}',
        b'{"do": "set", "direction": "sideways"}',
        b'{"do": "status"}\xff',
        b"\x00\xff\xfe",
    ],
)
def test_a_hostile_control_line_is_refused_and_changes_nothing(
    bench: Bench, raw_control: socket.socket, line: bytes
) -> None:
    before = bench.ask(Status())
    raw_control.sendall(line + b"\n")
    assert raw_control.recv(4096).startswith(b'{"ok":false,"error":')
    after = bench.ask(Status())
    assert (after.baud, after.noise_up, after.plugged) == (before.baud, before.noise_up, before.plugged)


def test_a_control_line_without_an_end_is_cut_off(bench: Bench, raw_control: socket.socket) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        pour(raw_control, b"x" * 4096)
    bench.ask(Status())


def test_who_asks_without_reading_the_answers_is_cut_off(bench: Bench, raw_control: socket.socket) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        pour(raw_control, b'{"do":"status"}\n' * 200)
    bench.ask(Status())


def test_more_control_connections_than_the_bound_are_turned_away(bench: Bench) -> None:
    links = [sockets.connect(bench.folder / "cable.sock", PATIENCE_S) for _ in range(20)]
    links[0].sendall(b'{"do":"status"}\n')
    assert links[0].recv(4096)
    assert links[-1].recv(1) == b""
    for link in links:
        link.close()


def test_a_full_house_is_empty_again_when_the_clients_left(bench: Bench) -> None:
    assert [bench.ask(Status()).plugged for _ in range(40)] == [True] * 40, "each ask is a client of its own"


def test_the_cable_ends_with_its_parent(tmp_path: Path) -> None:
    tools = Path(sys.modules["edge_tools"].__path__[0]).parent
    program = (
        "import pathlib, sys, os, signal\n"
        "from edge_tools.hil.board import CableProcess\n"
        "cable = CableProcess(pathlib.Path(sys.argv[1]), 115200, 0)\n"
        "cable.wait_ready()\n"
        "print(cable.pid, flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tools)},
    )
    assert parent.stdout is not None
    cable = os.pidfd_open(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert select.select([cable], [], [], PATIENCE_S)[0], "the cable outlived its parent"
    os.close(cable)
