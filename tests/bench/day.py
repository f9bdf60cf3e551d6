"""A day of eight boards as `edge record` would have written it: made from a seed, as like a real one as we can.

Each board sends its temperature every 5 s as the TMP105 gives it (steps of 1/16 °C), its humidity every 30 s, and
`door` when somebody passes. Rooms follow the day with a lag and an amplitude of their own, are aired and heated; each
board drops out a few times, keeps what it measured meanwhile, and sends it in one go when it is back.
"""

import math
import random
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from edge.rules.recorded import Recorded

BOARDS = 8
DAY_S = 86_400
TEMPERATURE_EVERY_S = 5
HUMIDITY_EVERY_S = 30
START = 1_767_225_600  # 1 January 2026, 00:00 UTC


class Counts(NamedTuple):
    """What a day holds."""

    temperatures: int
    humidities: int
    doors: int

    @property
    def messages(self) -> int:
        return self.temperatures + self.humidities + self.doors


def messages(seed: int) -> list[Recorded]:
    """All of a day, in order of arrival."""
    found = [one for board in range(1, BOARDS + 1) for one in _board(board, random.Random(seed * 100 + board))]
    return sorted(found, key=lambda one: one.time)


def counts(day: list[Recorded]) -> Counts:
    of = {kind: sum(one.topic.endswith(f"/{kind}") for one in day) for kind in ("temp", "hum", "door")}
    return Counts(of["temp"], of["hum"], of["door"])


def lines(day: list[Recorded]) -> Iterator[bytes]:
    """As in the file."""
    for one in day:
        yield msgspec.json.encode(one) + b"\n"


def _board(board: int, chance: random.Random) -> Iterator[Recorded]:
    name = f"b{board}"
    level, swing, lag = 20.5 + chance.gauss(0, 1), 1.5 + chance.random() * 2, chance.uniform(1, 4)
    away = _times(chance, 3, 300, 2400)
    aired = _times(chance, 5, 240, 900)
    doors = sorted(chance.gauss(13, 3) * 3600 for _ in range(chance.randint(40, 160)))
    offset, drift, moisture = 0.0, 0.0, 45 + chance.gauss(0, 4)
    phase = chance.random() * TEMPERATURE_EVERY_S

    def sent(at: float, kind: str, payload: str) -> Recorded:
        late = next((end + 0.02 * chance.random() for start, end in away if start <= at < end), at)
        return Recorded(round(START + late, 3), f"dt/{name}/{kind}", payload, source=f"board:{name}")

    for step in range(DAY_S // TEMPERATURE_EVERY_S):
        at = step * TEMPERATURE_EVERY_S + phase
        open_window = any(start <= at < end for start, end in aired)
        offset += (-4 - offset) * 0.01 if open_window else -offset * 0.004
        drift = 0.9995 * drift + chance.gauss(0, 0.003)
        celsius = level + swing * math.sin((at / 3600 - 9 - lag) / 24 * math.tau) + offset + drift
        celsius = round((celsius + chance.gauss(0, 0.03)) * 16) / 16
        yield sent(at, "temp", f'{{"c":{celsius:.4f},"up_ms":{round(at * 1000)}}}')
        if step % (HUMIDITY_EVERY_S // TEMPERATURE_EVERY_S) == 0:
            moisture += chance.gauss(0, 0.05) + ((35 - moisture) * 0.02 if open_window else (45 - moisture) * 0.001)
            humidity = moisture + chance.gauss(0, 0.15)
            yield sent(at + 0.4, "hum", f'{{"rh":{humidity:.1f},"up_ms":{round(at * 1000) + 400}}}')
    for at in doors:
        if 0 <= at < DAY_S:
            yield sent(at, "door", f'{{"open":true,"up_ms":{round(at * 1000)}}}')


def _times(chance: random.Random, many: int, least: float, most: float) -> list[tuple[float, float]]:
    """(start, end) of about so many spells within the day."""
    starts = [chance.random() * DAY_S for _ in range(chance.randint(many - 2, many + 2))]
    return [(start, start + chance.uniform(least, most)) for start in starts]
