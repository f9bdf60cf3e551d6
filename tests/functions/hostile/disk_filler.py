"""Fills its own folder with files, some of them unlinked while open; at most a quarter of a gigabyte."""

import json
import os
import sys
import time


def handler(event, context):
    kept = []
    for number in range(64):
        name = os.path.join(os.environ["TMPDIR"], f"fill{number}")
        fd = os.open(name, os.O_CREAT | os.O_WRONLY)
        for _ in range(4):
            os.write(fd, bytes(1 << 20))
        if number % 2:
            os.unlink(name)
            kept.append(fd)
        else:
            os.close(fd)
        time.sleep(0.005)
    print("filled all", flush=True)
    time.sleep(30)


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
