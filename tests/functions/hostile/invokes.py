"""Calls another function, its own `invoked`, without waiting for it: from a thread and without end, or as often as it
is told."""

import threading
import time


def handler(event, context):
    if threading.active_count() == 1:
        threading.Thread(target=_flood, args=(event.get("calls", 1 << 62),), daemon=True).start()


def invoked(event, context):
    pass


def _flood(calls):
    from edge import invoke

    time.sleep(0.1)  # the call that began it ends first
    for _ in range(calls):
        invoke("invoked", b"{}", wait=False)


if __name__ == "__main__":
    _flood(1 << 62)
