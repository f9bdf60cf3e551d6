"""Tries to read EVENT `paths`, the environment and memory of other processes, and whatever looks like a key."""

import glob
import json
import os
import sys


def handler(event, context):
    found = []
    paths = [*event.get("paths", []), *glob.glob("/etc/ssl/private/*"), *glob.glob("/root/.ssh/*"), "/etc/shadow"]
    for folder in glob.glob("/proc/[0-9]*"):
        if folder != f"/proc/{os.getpid()}":
            paths += [f"{folder}/environ", f"{folder}/maps"]
    for path in paths:
        try:
            with open(path, "rb") as file:
                if file.read(64):
                    found.append(path)
        except OSError:
            continue
    print("found", json.dumps(found), flush=True)
    return {"found": found}


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
