"""Tells each reading in degrees Fahrenheit, too."""

from edge import Message, on, publish


@on("dt/+/temp")
def convert(message: Message) -> None:
    board = message.topic.split("/")[1]
    celsius = message.json()["c"]
    reading = message.reading
    name = {"boot": reading.boot, "seq": reading.sequence} if reading else {}
    publish(f"fahrenheit/{board}", {"f": celsius * 1.8 + 32, **name})
