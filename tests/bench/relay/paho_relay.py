"""A relay on paho-mqtt, for comparison: `paho_relay.py LOCAL_PORT CLOUD_PORT [CA CERTIFICATE KEY]`."""

import sys

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def main(local_port: int, cloud_port: int, *files: str) -> None:
    cloud = Client(CallbackAPIVersion.VERSION2, "relay-cloud", protocol=MQTTProtocolVersion.MQTTv5)
    cloud.max_inflight_messages_set(1000)
    cloud.max_queued_messages_set(0)
    if files:
        cloud.tls_set(files[0], files[1], files[2])
    cloud.connect("127.0.0.1", cloud_port)
    cloud.loop_start()
    local = Client(CallbackAPIVersion.VERSION2, "relay-local", protocol=MQTTProtocolVersion.MQTTv5)

    def subscribe(*given: object) -> None:
        local.subscribe("bench/#", qos=1)

    def relay(client: Client, data: object, message: MQTTMessage) -> None:
        cloud.publish(message.topic, message.payload, 1)

    local.on_connect = subscribe
    local.on_message = relay
    local.connect("127.0.0.1", local_port)
    local.loop_forever()


main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
