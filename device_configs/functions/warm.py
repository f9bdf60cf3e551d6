"""Publishes when a board becomes too warm and when it is well again, and every ten seconds how many are too warm."""

from edge import Message, every, on, publish

LIMIT_C = 30.0
too_warm: set[str] = set()


@on("dt/+/temp")
def check(message: Message) -> None:
    board = message.topic.split("/")[1]
    celsius = message.json()["c"]
    if (celsius > LIMIT_C) is not (board in too_warm):
        publish(f"warm/{board}", {"c": celsius, "too_warm": celsius > LIMIT_C})
        too_warm.symmetric_difference_update({board})


@every("10 s")
async def tell() -> None:
    publish("warm", {"boards": sorted(too_warm)})


@on("ask/warm")
def answer(message: Message) -> dict[str, object]:
    """What a handler returns goes to the response topic of the message."""
    return {"boards": sorted(too_warm), "limit_c": LIMIT_C}
