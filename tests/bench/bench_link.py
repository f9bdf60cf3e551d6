"""How much of a real line's time is used, and what a command costs beyond the line's own time.

One FreeRTOS board on QEMU behind a paced 115,200-baud cable, the real gateway, a mosquitto over mutual TLS, and an
independent client that counts.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median

from edge_tools.hil.board import EmulatedBoard, default_elf, start_boards
from edge_tools.hil.pace import BITS_PER_BYTE
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import issue_client, issue_server, make_ca
from tests.bench.figures import Context, Figure, NoFigure, figure
from tests.system.cloud import Cloud
from tests.system.gateway import NAME, Gateway, gateway_file

DESCRIPTION = "a paced 115,200-baud line: how busy readings keep it, and a command's round trip beside the line's time"
NEEDS_FIRMWARE = ("mps2_an385",)
BOARD = "mps2_an385"
BAUD = 115_200
COMMAND = bytes(range(32))
_SETTLING_S = 1.0


class Line:
    """The parts, running."""

    def __init__(self, board: EmulatedBoard, cloud: Cloud) -> None:
        self.board, self.cloud = board, cloud

    def busy(self, repeats: int, seconds: float) -> list[float]:
        """Shares of the time in which the board's end had bits on the line, readings waiting all the while."""
        self.cloud.ask(self.board.name, "interval", b"0")
        time.sleep(_SETTLING_S)
        states = [self.board.line()]
        for _ in range(repeats):
            time.sleep(seconds)
            states.append(self.board.line())
        self._check_all_arrived()
        return [
            (after.up.busy_s - before.up.busy_s) / (after.now_s - before.now_s) for before, after in pairwise(states)
        ]

    def _check_all_arrived(self) -> None:
        counters = self.cloud.settle(self.board.name)
        arrived, produced = len(self.cloud.readings(self.board.name)), counters["readings_produced"]
        lost = counters["readings_shed"] + produced - counters["readings_acknowledged"]
        if lost or not produced <= arrived <= produced + counters["readings_sent_again"]:
            raise NoFigure(f"of {produced:,} readings {arrived:,} arrived, {lost:,} were lost")

    def round_trips(self, count: int) -> tuple[float, float]:
        """Medians in ms: command published to answer received at the cloud, and both frames' time on the line.

        An answer's frame is as long as its command's: the same header, topic id and payload. The acknowledgement that
        follows is no part of the way.
        """
        took, line = [], []
        for _ in range(count):
            before = self.board.line().up.bytes_out
            began = time.perf_counter()
            answer = self.cloud.ask_quickly(self.board.name, "ping", COMMAND)
            took.append((time.perf_counter() - began) * 1000)
            if answer.payload != COMMAND:
                raise NoFigure("a ping came back changed")
            line.append(2 * (self.board.line().up.bytes_out - before) * BITS_PER_BYTE / BAUD * 1000)
        return median(took), median(line)


@contextmanager
def running(context: Context) -> Iterator[Line]:
    folder = context.workdir
    authority = make_ca(folder / "ca")
    server = issue_server(authority, folder / "server", ["127.0.0.1"])
    thing, observer = (issue_client(authority, folder / name, name) for name in (NAME, "observer"))
    with (
        start_boards(1, BOARD, folder, default_elf(BOARD, context.root / "firmware"), BAUD) as (board,),
        Mosquitto(folder / "cloud", plain=False, tls=server) as broker,
    ):
        cloud = Cloud(broker.tls_port, observer)
        gateway = Gateway(folder, gateway_file([board], broker.tls_port, thing))
        try:
            gateway.start([board.name])
            yield Line(board, cloud)
        finally:
            gateway.stop()
            cloud.close()


def run(context: Context) -> list[Figure]:
    with running(context) as line:
        context.progress("  readings")
        busy = line.busy(context.repeats, context.pick(8.0, 3.0))
        context.progress("  commands")
        commands = [line.round_trips(context.pick(200, 60)) for _ in range(context.repeats)]
    return [
        figure(
            "line_busy",
            busy,
            "ratio",
            "higher",
            goal=0.95,
            references={"line": [1.0]},
        ),
        figure(
            "command_round_trip_ms_p50",
            [took for took, _ in commands],
            "ms",
            "lower",
            goal=lambda references: 2 * references["line_time_ms"] + 2,
            references={"line_time_ms": [own for _, own in commands]},
        ),
    ]
