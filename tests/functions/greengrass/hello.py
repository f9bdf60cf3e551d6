"""In the shape of Greengrass v1's first example: long-lived, it greets from a timer's thread that the import begins."""

import logging
import platform
import sys
from threading import Timer

import greengrasssdk

logger = logging.getLogger(__name__)
logging.basicConfig(stream=sys.stdout, level=logging.DEBUG)

client = greengrasssdk.client("iot-data")
here = platform.platform()


def greet():
    try:
        client.publish(topic="hello/world", queueFullPolicy="AllOrException", payload=f"Greetings from {here}")
    except Exception as error:  # noqa: BLE001
        logger.error("not greeted: %r", error)
    Timer(0.05, greet).start()


greet()


def function_handler(event, context):
    """Never called: it has no subscription."""
    return
