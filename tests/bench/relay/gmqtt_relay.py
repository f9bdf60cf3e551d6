"""A relay on gmqtt, for comparison: `gmqtt_relay.py LOCAL_PORT CLOUD_PORT [CA CERTIFICATE KEY]`."""

import asyncio
import ssl
import sys

import gmqtt  # type: ignore[import-untyped]


async def main(local_port: int, cloud_port: int, *files: str) -> None:
    context = None
    if files:
        context = ssl.create_default_context(cafile=files[0])
        context.load_cert_chain(files[1], files[2])
    cloud = gmqtt.Client("relay-cloud")
    await cloud.connect("127.0.0.1", cloud_port, ssl=context or False)
    local = gmqtt.Client("relay-local", receive_maximum=1000)

    def relay(client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: object) -> int:
        cloud.publish(topic, payload, qos=1)
        return 0

    local.on_message = relay
    local.on_connect = lambda *given: local.subscribe("bench/#", qos=1)
    await local.connect("127.0.0.1", local_port)
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
