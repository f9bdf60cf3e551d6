"""Every process begets more; at most EVENT `budget` of them altogether, each for a minute."""

import json
import os
import signal
import sys
import time


def _bomb(budget):
    signal.alarm(60)
    while budget > 0:
        half = budget // 2
        budget -= half + 1
        try:
            if os.fork() == 0:
                budget = half
        except OSError as error:
            print("refused", error.errno, flush=True)
            time.sleep(1)
    time.sleep(60)


def handler(event, context):
    _bomb(min(int(event.get("budget", 200)), 400))


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
