"""What the demo's independent client has seen at the cloud, and what it all comes to. Pure.

A reading is named by (thing, boot, sequence), which the gateway writes into the publish's user properties; the same
name twice is one reading, repeated. A command is matched with its answer by its correlation data. A window of the
gateway's rule is named by its board and its start; all windows together must hold every reading. The function's result
for a reading carries the reading's name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

SENSOR_STEP_C = 1 / 16  # the TMP105's least significant bit at 12 bits


class Result(msgspec.Struct, frozen=True):
    """The one JSON object the demo prints; readings_produced is the boards' own count."""

    boards: int
    readings_produced: int
    readings_received: int
    readings_repeated: int
    readings_visible: int
    readings_visible_twice: int
    readings_shed: int
    commands_sent: int
    commands_answered: int
    frames_rejected: int
    temperature_set_c: float | None
    temperature_seen_c: float | None
    rule_windows: int
    rule_readings: int
    function_calls: int
    function_results_received: int

    def failures(self) -> list[str]:
        """Why the demo failed, in words; empty: all went well."""
        found = []
        if not self.readings_produced or self.readings_received != self.readings_produced:
            found.append(f"{self.readings_received} of {self.readings_produced} readings arrived")
        if self.readings_visible != self.readings_received:
            found.append(f"{self.readings_visible} of {self.readings_received} readings are shown")
        if self.readings_visible_twice:
            found.append(f"{self.readings_visible_twice} readings are shown more than once")
        if self.readings_shed:
            found.append(f"{self.readings_shed} readings were shed")
        if not self.commands_sent or self.commands_answered != self.commands_sent:
            found.append(f"{self.commands_answered} of {self.commands_sent} commands were answered")
        if self.temperature_set_c is None or self.temperature_seen_c is None:
            found.append(f"the sensor was set to {self.temperature_set_c} °C, seen was {self.temperature_seen_c}")
        elif abs(self.temperature_seen_c - self.temperature_set_c) >= SENSOR_STEP_C:
            found.append(f"the sensor was set to {self.temperature_set_c} °C, {self.temperature_seen_c} °C was seen")
        if not self.rule_windows or self.rule_readings != self.readings_produced:
            found.append(
                f"{self.rule_windows} windows of the rule came, with {self.rule_readings} of "
                f"{self.readings_produced} readings in them"
            )
        if not self.function_calls or self.function_results_received != self.readings_produced:
            found.append(
                f"{self.function_results_received} right results of the function came for "
                f"{self.readings_produced} readings, by {self.function_calls} calls"
            )
        return found


class Mean(msgspec.Struct, frozen=True):
    """A row of the gateway's rule: one window of one board."""

    board: str
    c_avg: float
    c_max: float
    n: int
    from_ms: int


class Fahrenheit(msgspec.Struct, frozen=True):
    """What the gateway's function makes of a reading."""

    f: float
    boot: int
    seq: int


class Command:
    """One command under way."""

    def __init__(self, thing: str, name: str, sent_s: float) -> None:
        self.thing, self.name, self.sent_s = thing, name, sent_s
        self.answer: bytes | None = None
        self.took_ms = 0.0


class Seen:
    """What is known of one board at the cloud."""

    def __init__(self) -> None:
        self.readings: dict[tuple[int, int], float] = {}  # (boot, sequence) to what it says
        self.means: dict[int, Mean] = {}  # by the start of its window
        self.results: dict[tuple[int, int], float] = {}  # the function's, by reading
        self.repeated = 0
        self.temperature_c: float | None = None
        self.sent = 0
        self.answered = 0
        self.round_trip_ms: float | None = None

    @property
    def last_mean(self) -> Mean | None:
        """Of the latest window."""
        return self.means[max(self.means)] if self.means else None


class Tally:
    """Everything seen so far. One caller at a time."""

    def __init__(self, things: Sequence[str]) -> None:
        self.boards = {thing: Seen() for thing in things}
        self.strangers = 0
        """Publishes that name no reading of a known board."""
        self._commands: dict[bytes, Command] = {}

    def add_reading(self, payload: bytes, user_properties: Sequence[tuple[str, str]]) -> str | None:
        """Note a publish on `dt/…`. Returns the thing it came from, None for a stranger's."""
        names = dict(user_properties)
        try:
            seen = self.boards[names["thing"]]
            reading = int(names["boot"]), int(names["seq"])
            temperature_c = float(msgspec.json.decode(payload, type=dict[str, Any])["c"])
        except (KeyError, ValueError, TypeError, msgspec.DecodeError):
            self.strangers += 1
            return None
        if reading in seen.readings:
            seen.repeated += 1
        seen.readings[reading] = temperature_c
        seen.temperature_c = temperature_c
        return names["thing"]

    def add_mean(self, payload: bytes) -> None:
        """Note a row of the rule; one that is no window of a known board is a stranger's."""
        try:
            mean = msgspec.json.decode(payload, type=Mean)
            self.boards[mean.board].means[mean.from_ms] = mean
        except (KeyError, msgspec.DecodeError):
            self.strangers += 1

    def in_means(self, thing: str) -> int:
        """How many readings the windows of the board hold."""
        return sum(mean.n for mean in self.boards[thing].means.values())

    def means_fit(self, thing: str) -> bool:
        """Whether the windows of the board average just what its readings say."""
        seen = self.boards[thing]
        total = sum(mean.c_avg * mean.n for mean in seen.means.values())
        highest = max((mean.c_max for mean in seen.means.values()), default=None)
        return abs(total - sum(seen.readings.values())) < 1e-6 * max(1, len(seen.readings)) and (
            highest == max(seen.readings.values(), default=None)
        )

    def add_result(self, thing: str, payload: bytes) -> None:
        """Note a result of the function; one for no known board is a stranger's."""
        try:
            result = msgspec.json.decode(payload, type=Fahrenheit)
            self.boards[thing].results[result.boot, result.seq] = result.f
        except (KeyError, msgspec.DecodeError):
            self.strangers += 1

    def right_results(self, thing: str) -> int:
        """To how many readings of the board the function has given the right result."""
        seen = self.boards[thing]
        return sum(
            reading in seen.readings and abs(seen.readings[reading] * 1.8 + 32 - result) < 1e-9
            for reading, result in seen.results.items()
        )

    def add_command(self, correlation: bytes, thing: str, name: str, now_s: float) -> Command:
        command = self._commands[correlation] = Command(thing, name, now_s)
        self.boards[thing].sent += 1
        return command

    def add_answer(self, correlation: bytes, payload: bytes, now_s: float) -> None:
        """A second answer to the same command, or one to none of ours, changes nothing."""
        command = self._commands.pop(correlation, None)
        if command is None:
            return
        command.answer, command.took_ms = payload, (now_s - command.sent_s) * 1000
        seen = self.boards[command.thing]
        seen.answered += 1
        seen.round_trip_ms = command.took_ms

    def received(self, thing: str) -> int:
        return len(self.boards[thing].readings)

    def result(
        self,
        shown: Mapping[tuple[str, int, int], int],
        *,
        produced: int,
        shed: int,
        frames_rejected: int,
        temperature_set_c: float | None,
        temperature_seen_c: float | None,
        function_calls: int,
    ) -> Result:
        """produced, shed, function_calls: as the boards and the gateway count them. shown: how often the receiving
        side shows each."""
        seen = self.boards.values()
        return Result(
            boards=len(self.boards),
            readings_produced=produced,
            readings_received=sum(len(board.readings) for board in seen),
            readings_repeated=sum(board.repeated for board in seen),
            readings_visible=len(shown),
            readings_visible_twice=sum(1 for times in shown.values() if times > 1),
            readings_shed=shed,
            commands_sent=sum(board.sent for board in seen),
            commands_answered=sum(board.answered for board in seen),
            frames_rejected=frames_rejected,
            temperature_set_c=temperature_set_c,
            temperature_seen_c=temperature_seen_c,
            rule_windows=sum(len(board.means) for board in seen),
            rule_readings=sum(self.in_means(thing) for thing in self.boards if self.means_fit(thing)),
            function_calls=function_calls,
            function_results_received=sum(map(self.right_results, self.boards)),
        )
