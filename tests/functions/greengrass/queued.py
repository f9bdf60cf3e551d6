"""In the shape of the long-lived functions that queue what comes, by its subject, for a thread of their own."""

import json
import logging
import queue
import threading

import greengrasssdk

client = greengrasssdk.client("iot-data")
waiting = queue.Queue(maxsize=100)
logging.basicConfig(level=logging.INFO)


def drain():
    while True:
        subject, event = waiting.get()
        body = json.dumps({"from": subject, "seen": event}).encode("utf-8")
        client.publish(topic=f"seen/{subject.split('/')[-1]}", queueFullPolicy="BestEffort", payload=body)
        waiting.task_done()


threading.Thread(target=drain, daemon=True).start()


def function_handler(event, context):
    subject = context.client_context.custom["subject"]
    logging.info("%s %s took %s", context.function_name, context.aws_request_id, subject)
    waiting.put((subject, event))
    waiting.join()
    return {"left_ms": context.get_remaining_time_in_millis()}
