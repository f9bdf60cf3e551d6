"""AWS Lambda's manner: `handler(event, context)`, with the event of Greengrass v1 and the context fields of both."""

import contextvars
import os
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from edge.functions import wire

VERSION = "$LATEST"
_ARN = "arn:aws:lambda:local:000000000000:function:"

_decode = msgspec.json.Decoder().decode
current_request: contextvars.ContextVar[str] = contextvars.ContextVar("edge_request", default="")
"""aws_request_id of the call that is under way."""


def arn(name: str) -> str:
    return _ARN + name


def name_of(function: str) -> str:
    """Of an ARN with or without a qualifier, of `name:qualifier`, or the name itself."""
    parts = function.split(":")
    return parts[6] if parts[0] == "arn" and len(parts) >= 7 else parts[0]


def log_group(settings: wire.Configure) -> str:
    return f"/aws/lambda/{settings.name}"


def log_stream(settings: wire.Configure) -> str:
    return f"{settings.thing}/{os.getpid()}"


def environment(settings: wire.Configure) -> dict[str, str]:
    """The variables of AWS Lambda, of Greengrass v1 and of its provisioner. The account's number is not known here; the
    region is where the cloud is AWS IoT Core."""
    region = settings.region
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    found = {
        "AWS_LAMBDA_FUNCTION_NAME": settings.name,
        "AWS_LAMBDA_FUNCTION_VERSION": VERSION,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_bytes_max // 1_048_576),
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group(settings),
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream(settings),
        "LAMBDA_TASK_ROOT": settings.file if os.path.isdir(settings.file) else os.path.dirname(settings.file),
        "_HANDLER": settings.handler,
        "MY_FUNCTION_ARN": arn(settings.name),
        "AWS_IOT_THING_NAME": settings.thing,
        "AWS_IOT_THING_ARN": f"arn:{partition}:iot:{region or 'local'}:000000000000:thing/{settings.thing}",
        "AWS_GREENGRASS_GROUP_NAME": settings.thing,
        "GROUP_ID": settings.group,
    }
    return found | dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), region) if region else found


def event_of(call: wire.Call, name: str) -> Any:
    """A payload's JSON value; the bytes when it is no JSON; for a schedule, the event that EventBridge would send."""
    if call.kind == "schedule":
        moment = datetime.fromtimestamp(call.time_ms / 1000 if call.time_ms else time.time(), UTC)
        return {
            "version": "0",
            "id": request_id(call),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": "000000000000",
            "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": "local",
            "resources": [arn(name)],
            "detail": {},
        }
    try:
        return _decode(call.payload)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return call.payload


def request_id(call: wire.Call) -> str:
    """Like a UUID; the same for all attempts. The gateway's name for it; a made one in unit tests."""
    if call.request:
        return call.request
    digits = f"{call.time_ms & (2**64 - 1):016x}{call.id:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class ClientContext:
    """custom: Greengrass gives `subject`, the topic, here. client: of mobile SDKs, empty."""

    __slots__ = ("client", "custom", "env")

    def __init__(self, custom: Any, env: Any = None, client: Any = None) -> None:
        self.custom, self.env, self.client = custom, env, client


class Identity:
    """Of mobile SDKs: empty here."""

    cognito_identity_id = None
    cognito_identity_pool_id = None


_NOBODY = Identity()


class Context:
    """Lambda's context object."""

    function_version = VERSION
    identity = _NOBODY

    def __init__(self, call: wire.Call, settings: wire.Configure, deadline: float) -> None:
        self.function_name = settings.name
        self.invoked_function_arn = _ARN + settings.name
        self.memory_limit_in_mb = settings.memory_bytes_max // 1_048_576
        self.aws_request_id = request_id(call)
        self.log_group_name = log_group(settings)
        self.log_stream_name = log_stream(settings)
        self.client_context = _client_context(call)
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, message: object) -> None:
        print(message)  # noqa: T201 - it is what Lambda's does


def _client_context(call: wire.Call) -> ClientContext:
    if call.context:
        try:
            given = _decode(call.context)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            given = None
        if isinstance(given, dict):
            return ClientContext(given.get("custom"), given.get("env"), given.get("client"))
    return ClientContext({"subject": call.topic})
