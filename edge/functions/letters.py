"""What is told of a message that failed to the last. Pure.

A dead letter goes to the stream that `dead_letter` names, on the topic `dead-letter/FUNCTION/TOPIC`, as a JSON object:
function, topic, payload (text) or payload_base64, error, attempts, time_ms (when the gateway took the message, where
that is known), and thing, boot, sequence where the message is a reading; `cut` where payload or error were too long.
"""

from base64 import b64encode
from typing import Any, Final

import msgspec

from edge.messages import Message, Reading

PAYLOAD_BYTES_MAX: Final = 64 * 1024
ERROR_CHARACTERS_MAX, ERROR_CHARACTERS_LEAST = 4096, 400
DATA_BYTES_MAX: Final = 112 * 1024
TOPIC_CHARACTERS_MAX: Final = 4000

_encode = msgspec.json.Encoder().encode


def dead_letter(function: str, message: Message, error: str, attempts: int, reading: Reading | None) -> Message:
    """reading: the message's own name, if it has one."""
    row: dict[str, Any] = {"function": function, "topic": message.topic[:TOPIC_CHARACTERS_MAX]}
    payload = message.payload[:PAYLOAD_BYTES_MAX]
    try:
        row["payload"] = payload.decode()
    except UnicodeDecodeError:
        row["payload_base64"] = b64encode(payload).decode()
    row |= {"error": error[:ERROR_CHARACTERS_MAX], "attempts": attempts, "time_ms": message.time_ms}
    if reading is not None:
        row |= {"thing": reading.thing, "boot": reading.boot, "sequence": reading.sequence}
    if len(payload) < len(message.payload) or len(error) > ERROR_CHARACTERS_MAX:
        row["cut"] = True
    data = _encode(row)
    if len(data) > DATA_BYTES_MAX:  # much of the text had to be escaped
        row.pop("payload", None)
        data = _encode(row | {"payload_base64": b64encode(payload).decode(), "error": error[:ERROR_CHARACTERS_LEAST]})
    topic = f"dead-letter/{function}/{message.topic[:TOPIC_CHARACTERS_MAX]}"
    return Message(topic, data, qos=1)
