"""Hears no signal that can be ignored, and leaves a grandchild in a session of its own that writes on; for a minute."""

import contextlib
import json
import os
import signal
import sys
import time


def _deaf():
    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)


def handler(event, context):
    _deaf()
    until = time.monotonic() + 60
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            os.setsid()
        if os.fork() == 0:
            while time.monotonic() < until:
                with open(os.path.join(os.environ["TMPDIR"], "alive"), "w") as file:
                    file.write(str(time.monotonic()))
                print("deaf", flush=True)
                time.sleep(0.02)
        os._exit(0)
    while time.monotonic() < until:
        time.sleep(1)


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
