"""In the shape of the traffic light's example: a message turns a thing's shadow, read first and then written."""

import json

import greengrasssdk
from greengrasssdk.IoTDataPlane import ShadowError
from order import follower

client = greengrasssdk.client("iot-data")


def lambda_handler(event, context):
    thing = event["thing"]
    try:
        document = json.loads(client.get_thing_shadow(thingName=thing)["payload"])
        colour = document["state"]["reported"]["colour"]
    except ShadowError as error:
        print(f"no light yet: {error}")
        colour = None
    turned = {"state": {"reported": {"colour": follower(colour)}}}
    answer = client.update_thing_shadow(thingName=thing, payload=json.dumps(turned).encode())
    if event.get("remove"):
        client.delete_thing_shadow(thingName=thing)
    client.publish(topic="lights/turned", payload=json.dumps({"thing": thing, **turned["state"]["reported"]}))
    return json.loads(answer["payload"])["version"]
