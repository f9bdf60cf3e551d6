"""What the demo's independent client has seen at the cloud, and what it all comes to. Pure.

A reading is named by (thing, boot, sequence), which the gateway writes into the publish's user properties; the same
name twice is one reading, repeated. A command is matched with its answer by its correlation data.
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
        return found


class Command:
    """One command under way."""

    def __init__(self, thing: str, name: str, sent_s: float) -> None:
        self.thing, self.name, self.sent_s = thing, name, sent_s
        self.answer: bytes | None = None
        self.took_ms = 0.0


class Seen:
    """What is known of one board at the cloud."""

    def __init__(self) -> None:
        self.readings: set[tuple[int, int]] = set()  # (boot, sequence)
        self.repeated = 0
        self.temperature_c: float | None = None
        self.sent = 0
        self.answered = 0
        self.round_trip_ms: float | None = None


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
        seen.readings.add(reading)
        seen.temperature_c = temperature_c
        return names["thing"]

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
    ) -> Result:
        """produced, shed: as the boards and the gateway count them. shown: how often the receiving side shows each."""
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
        )
