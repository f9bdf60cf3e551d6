# As written for AWS Lambda on a Greengrass v1 core, unchanged.
import json
import logging

import greengrasssdk

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)
client = greengrasssdk.client("iot-data")


def lambda_handler(event, context):
    topic = context.client_context.custom["subject"]
    logger.info("%s: %s", topic, event)
    client.publish(topic="hello/" + topic, payload=json.dumps({"seen": event, "by": context.function_name}))
