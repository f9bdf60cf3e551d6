"""Publishes where it may not: in each way there is."""

import json
import sys


def handler(event, context):
    import greengrasssdk

    import edge

    refused = []
    for name, step in (
        ("publish", lambda: edge.publish("cmd/stolen", b"1")),
        ("greengrass", lambda: greengrasssdk.client("iot-data").publish(topic="cmd/stolen", payload=b"1")),
        ("wild", lambda: edge.publish("cmd/#", b"1")),
        ("system", lambda: edge.publish("$SYS/broker", b"1")),
    ):
        try:
            step()
        except Exception as error:  # noqa: BLE001
            refused.append(name)
            last = error
    if refused:
        print("refused", json.dumps(refused), flush=True)
        raise last


if __name__ == "__main__":
    handler(json.loads(sys.argv[1]), None)
