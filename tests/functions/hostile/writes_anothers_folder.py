"""Tries to write, rename, link and remove in EVENT `folders`."""

import json
import os
import sys


def _try(done, name, step):
    try:
        step()
    except OSError:
        return
    done.append(name)


def _attack(done, folder):
    planted, file = os.path.join(folder, "planted"), os.path.join(folder, "mine.txt")
    _try(done, "mode", lambda: os.chmod(folder, 0o777))
    _try(done, "write", lambda: os.close(os.open(planted, os.O_CREAT | os.O_WRONLY)))
    _try(done, "change", lambda: os.close(os.open(file, os.O_WRONLY)))
    _try(done, "link", lambda: os.link(file, "stolen"))
    _try(done, "remove", lambda: os.unlink(file))
    _try(done, "rename", lambda: os.rename(folder, folder + "-gone"))


def handler(event, context):
    done = []
    for folder in event.get("folders", []):
        _attack(done, folder)
    print("done", json.dumps(done), flush=True)
    return {"done": done}


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
