"""Publishes when a board becomes too warm and when it is well again, and every ten seconds which ones are too warm."""

from edge import Message, every, on, publish

LIMIT_C = 30.0
latest: dict[str, float] = {}


@on("dt/+/temp")
def check(message: Message) -> None:
    board = message.topic.split("/")[1]
    celsius = message.json()["c"]
    was_too_warm = latest.get(board, 0.0) > LIMIT_C
    latest[board] = celsius
    if (celsius > LIMIT_C) is not was_too_warm:
        publish(f"warm/{board}", {"c": celsius, "too_warm": celsius > LIMIT_C})


@every("10 s")
async def tell() -> None:
    publish("warm", {"boards": warmer_than(LIMIT_C)})


@on("ask/warm")
def answer(message: Message) -> dict[str, object]:
    """What a handler returns goes to the response topic of the message."""
    limit_c = float(message.text or LIMIT_C)
    return {"boards": warmer_than(limit_c), "limit_c": limit_c}


def warmer_than(limit_c: float) -> list[str]:
    return sorted(board for board, celsius in latest.items() if celsius > limit_c)
