"""Publishes where it may not, from an async handler: in each way there is."""

import json


async def handler(event, context):
    import greengrasssdk

    import edge

    async def own():
        await edge.apublish("cmd/stolen", b"1")

    refused = []
    for name, step in (
        ("publish", lambda: edge.publish("cmd/stolen", b"1")),
        ("wait", lambda: edge.publish("cmd/stolen", b"1", wait=True)),
        ("apublish", own),
        ("greengrass", lambda: greengrasssdk.client("iot-data").publish(topic="cmd/stolen", payload=b"1")),
        ("wild", lambda: edge.publish("cmd/#", b"1")),
        ("system", lambda: edge.publish("$SYS/broker", b"1")),
    ):
        try:
            waited = step()
            if waited is not None:
                await waited
        except Exception as error:  # noqa: BLE001
            refused.append([name, type(error).__name__])
            last = error
    if refused:
        print("refused", json.dumps(refused), flush=True)
        raise last
