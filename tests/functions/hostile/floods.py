"""Publishes large messages where it may, from a thread and without end, or as many as it is told: a hundred that nobody
acknowledges, a hundred that somebody does, and so on."""

import threading
import time


def handler(event, context):
    if threading.active_count() == 1:
        threading.Thread(target=_flood, args=(event.get("messages", 1 << 62),), daemon=True).start()


def _flood(messages):
    from edge import publish

    time.sleep(0.1)  # the call that began it ends first
    for number in range(messages):
        publish("own/flood", bytes(60_000), qos=number // 100 % 2)


if __name__ == "__main__":
    _flood(1 << 62)
