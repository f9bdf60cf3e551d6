"""The demo's run: readings flow, commands are answered, a sensor is set, and in the end all is counted.

With --outage the cloud's broker goes away in between, with --kill the gateway is killed hard and started again.

Ctrl-C (or SIGTERM, or the end of --seconds) pauses the boards, waits until what they hold has arrived, and counts; a
second Ctrl-C ends at once.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import msgspec

from edge_tools.demo.judge import Judge
from edge_tools.demo.tally import SENSOR_STEP_C, Command, Result, Tally
from edge_tools.demo.view import View, make_view
from edge_tools.demo.world import DemoFailed, World, start_world
from edge_tools.hil.errors import HilError
from edge_tools.mosquitto import MosquittoFailed

ROOT = Path(__file__).resolve().parents[3]
TEMPERATURES_C = (31.25, 18.5, 42.0625, -7.75)
COMMAND_EVERY_S = 1.0
SENSOR_EVERY_S = 10.0
SEEN_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 20.0
DRAIN_TIMEOUT_S = 60.0
FAULTS_AT = 0.3  # of the run's length
REJECTIONS = ("bad_crc", "bad_cobs", "too_long", "too_short", "timeout", "unknown_channel")  # as boards name them


class Faults(NamedTuple):
    """What befalls the run: the broker away for so long, and the gateway killed in the middle of that."""

    outage_s: float
    kill: bool

    def __bool__(self) -> bool:
        return bool(self.outage_s or self.kill)


class Interrupted(Exception):
    """To end at once."""


class Stop:
    """While readings flow (`orderly`), the first signal asks for an orderly end; any other interrupts whatever runs,
    and those after it are ignored, so that all that was started is ended."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.orderly = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.orderly and not self.asked.is_set():
            self.asked.set()
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted


class Run:
    """One run on a world that is up."""

    def __init__(self, world: World, view: View, stop: Stop) -> None:
        self._world, self._view, self._stop = world, view, stop
        self._judge: Judge = world.judge
        self._tally: Tally = world.judge.tally
        self._set_c: float | None = None
        self._seen_c: float | None = None

    def flow(self, seconds: float | None, faults: Faults) -> None:
        """Let readings and commands flow for the seconds, or until stopped; set the sensor in mid-run."""
        began_s = time.monotonic()
        sensor_s = began_s + (min(SENSOR_EVERY_S, seconds / 2) if seconds is not None else SENSOR_EVERY_S / 2)
        command_s, turn, settings = began_s, 0, 0
        faults_s = began_s + seconds * FAULTS_AT if faults and seconds is not None else None
        while not self._stop.asked.is_set():
            now_s = time.monotonic()
            if seconds is not None and now_s - began_s >= seconds and self._set_c is not None:
                break
            self._world.gateway.check()
            if faults_s is not None and now_s >= faults_s:
                faults_s = None
                self._suffer(faults)
            elif now_s >= command_s:
                name = list(self._tally.boards)[turn % len(self._tally.boards)]
                self._judge.command(name, "ping", f"hello {turn}".encode())
                command_s, turn = now_s + COMMAND_EVERY_S / len(self._tally.boards), turn + 1
            if now_s >= sensor_s and faults_s is None and not (settings and seconds is not None):
                self._set_sensor(TEMPERATURES_C[settings % len(TEMPERATURES_C)])
                sensor_s, settings = now_s + SENSOR_EVERY_S, settings + 1
            self._show()
            self._stop.asked.wait(0.1)

    def _suffer(self, faults: Faults) -> None:
        """The broker goes away and comes back; the gateway is killed in the middle and started again."""
        self._judge.wait(self._all_answered, ANSWER_TIMEOUT_S)
        if faults.outage_s:
            self._view.say(f"the cloud's broker goes away for {faults.outage_s:g} s")
            self._world.broker.stop()
        self._idle(faults.outage_s / 2)
        if faults.kill:
            self._view.say("kills the gateway with SIGKILL, and starts it again")
            self._world.gateway.kill_and_restart()
        self._idle(faults.outage_s / 2)
        if faults.outage_s:
            self._view.say("the broker is back")
            self._world.broker.start()
        self._world.gateway.wait_ready()
        self._view.say("all is connected again")

    def _idle(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not self._stop.asked.is_set():
            self._show()
            self._stop.asked.wait(0.1)

    def _show(self) -> None:
        with self._judge.changed:
            self._view.update(self._tally)

    def _set_sensor(self, temperature_c: float, *, stoppable: bool = True) -> None:
        """Set the first board's sensor and wait until a reading at the cloud shows it, or until asked to stop."""
        board = self._world.boards[0]
        self._set_c, self._seen_c = temperature_c, None
        self._view.say(f"sets the sensor of {board.name} to {temperature_c} °C")
        board.set_temperature(temperature_c)
        seen = self._tally.boards[board.name]

        def shown() -> bool:
            return seen.temperature_c is not None and abs(seen.temperature_c - temperature_c) < SENSOR_STEP_C

        began_s = time.monotonic()
        self._judge.wait(lambda: shown() or (stoppable and self._stop.asked.is_set()), SEEN_TIMEOUT_S)
        if shown():
            self._seen_c = seen.temperature_c
            self._view.say(f"{self._seen_c} °C is seen at the cloud after {time.monotonic() - began_s:.1f} s")

    def finish(self) -> Result:
        """Pause the boards, let what they hold arrive, and count by their own counters. Raises DemoFailed."""
        if self._set_c is None or self._seen_c is None:
            self._set_sensor(TEMPERATURES_C[0] if self._set_c is None else self._set_c, stoppable=False)
        self._view.say("pauses the boards and waits until all they hold has arrived")
        self._answers("pause")
        produced = shed = rejected = 0
        for name, answer in self._answers("stats").items():
            stats: dict[str, Any] = msgspec.json.decode(answer)
            made = int(stats["readings_produced"])
            produced += made
            shed += int(stats["readings_shed"])
            rejected += sum(int(stats[kind]) for kind in REJECTIONS)
            self._wait_received(name, made)
        self._judge.wait(self._all_answered, ANSWER_TIMEOUT_S)
        status = self._world.gateway.status()
        if status is None:
            raise DemoFailed("the gateway does not answer `edge status`; see gateway.log")
        counters = status["counters"].items()
        rejected += sum(int(n) for name, n in counters if name.startswith("frames_rejected"))
        shed += sum(int(n) for name, n in counters if name.startswith("stream_records_shed"))
        calls = sum(int(n) for name, n in counters if name.startswith("function_calls"))
        shown = self._world.shown.wait(produced, DRAIN_TIMEOUT_S)
        with self._judge.changed:
            self._view.update(self._tally)
            return self._tally.result(
                shown,
                produced=produced,
                shed=shed,
                frames_rejected=rejected,
                temperature_set_c=self._set_c,
                temperature_seen_c=self._seen_c,
                function_calls=calls,
            )

    def _wait_received(self, thing: str, count: int) -> None:
        """The readings themselves; in windows of the rule, the last of which closes when its time is up; and what the
        function makes of them."""
        self._judge.wait(lambda: self._tally.received(thing) >= count, DRAIN_TIMEOUT_S)
        self._judge.wait(lambda: self._tally.in_means(thing) >= count, DRAIN_TIMEOUT_S)
        self._judge.wait(lambda: self._tally.right_results(thing) >= count, DRAIN_TIMEOUT_S)

    def _answers(self, name: str) -> dict[str, bytes]:
        """Send the command to every board; its answers by board. Raises DemoFailed when one is missing."""
        commands: dict[str, Command] = {thing: self._judge.command(thing, name) for thing in self._tally.boards}
        if not self._judge.wait(lambda: all(c.answer is not None for c in commands.values()), ANSWER_TIMEOUT_S):
            silent = [thing for thing, command in commands.items() if command.answer is None]
            raise DemoFailed(f"no answer to the command {name} from {', '.join(silent)}")
        return {thing: command.answer or b"" for thing, command in commands.items()}

    def _all_answered(self) -> bool:
        return all(seen.answered == seen.sent for seen in self._tally.boards.values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./tools/demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, metavar="N", help="how long readings flow (default: until Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout at the end")
    parser.add_argument("--boards", type=int, default=2, metavar="N", help="how many boards (default %(default)s)")
    parser.add_argument("--outage", type=float, default=0.0, metavar="N", help="take the broker away for N seconds")
    parser.add_argument("--kill", action="store_true", help="kill the gateway in the middle, and start it again")
    options = parser.parse_args(arguments)
    if options.boards < 1 or (options.seconds is not None and not 0 < options.seconds <= 86_400):
        parser.error("--boards is at least 1, --seconds from above 0 to 86400")
    faults = Faults(options.outage, options.kill)
    if faults and (options.seconds is None or not 0 <= faults.outage_s <= options.seconds / 2):
        parser.error("--outage and --kill go with --seconds, and an outage lasts at most half of them")
    folder = Path(tempfile.mkdtemp(prefix="edgeloop-demo-"))
    view = make_view()
    try:
        stop = Stop()
        view.say(f"logs, keys and the boards' flash are in {folder}")
        with start_world(folder, options.boards, ROOT, view.say) as world:
            stop.orderly = True
            view.say(f"all is connected{'' if options.seconds else '; Ctrl-C ends'}")
            run = Run(world, view, stop)
            run.flow(options.seconds, faults)
            result = run.finish()
    except (DemoFailed, HilError, MosquittoFailed, OSError) as error:
        view.close()
        print(f"demo: {error}\ndemo: the logs are in {folder}", file=sys.stderr)
        return 1
    except Interrupted:
        view.close()
        print(f"demo: interrupted; the logs are in {folder}", file=sys.stderr)
        return 130
    view.close()
    print(msgspec.json.encode(result).decode() if options.json else _words(result), flush=True)
    failures = result.failures()
    for failure in failures:
        print(f"demo: {failure}; the logs are in {folder}", file=sys.stderr)
    return 1 if failures else 0


def _words(result: Result) -> str:
    width = max(map(len, result.__struct_fields__))
    return "\n".join(f"{name:{width}}  {getattr(result, name)}" for name in result.__struct_fields__)


if __name__ == "__main__":
    sys.exit(main())
