"""Has a thousand schedules, each due a thousand times a second."""

from edge import every


def tick():
    pass


for _ in range(1_000):
    every("1 ms")(tick)
