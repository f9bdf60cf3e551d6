"""Raises an error of 10 MB."""

import json
import sys


def handler(event, context):
    raise ValueError("much " * 2_000_000)


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
