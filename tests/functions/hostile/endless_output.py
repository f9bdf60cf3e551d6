"""Writes long lines and many to its outputs without end: for a minute, at most 400 MB."""

import json
import os
import sys
import time


def handler(event, context):
    until, left = time.monotonic() + 60, 400 << 20
    while time.monotonic() < until and left > 0:
        left -= os.write(1, b"endless " * 4096 + b"\n")
        left -= os.write(2, b"endless\n" * 4096)


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
