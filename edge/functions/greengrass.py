"""What `greengrasssdk` offered to the functions of Greengrass v1: same names, same keywords, same exceptions.

Not offered: the stream manager. A publish beyond the grants, a function or secret that is not there, a shadow service
that does not answer raise what the SDK raised when its core refused: InvocationException, ShadowError,
SecretsManagerError.
"""

import base64
import io
import json
from typing import Any, Final

from edge.functions import lambda_, wire
from edge.functions.api import (
    RequestDenied,
    RequestFailed,
    connected,
    current_call,
    granted,
    invoking,
    raise_for,
    secret,
    shadowing,
)
from edge.functions.handlers import check_topic


class InvocationException(Exception):
    """Of greengrasssdk.Lambda."""


class ShadowError(Exception):
    """Of greengrasssdk.IoTDataPlane."""


class SecretsManagerError(Exception):
    """Of greengrasssdk.SecretsManager."""


class StreamingBody:
    """A result to be read, as boto3 gives it."""

    def __init__(self, payload: bytes) -> None:
        self._stream = io.BytesIO(payload)

    def read(self, amt: int | None = None) -> bytes:
        return self._stream.read(amt)

    def close(self) -> None:
        self._stream.close()


class IoTDataClient:
    """greengrasssdk.client("iot-data")."""

    def publish(self, **given: Any) -> None:
        """topic, payload (bytes, str or file-like), queueFullPolicy: `AllOrException` waits until all receivers have
        taken it, and raises when they have no room."""
        topic = _required(given, "topic")
        payload = _payload(given.get("payload", b""))
        policy = given.get("queueFullPolicy", "")
        if policy not in {"AllOrException", "BestEffort", ""}:
            raise ValueError(f"Invalid value for queueFullPolicy: {policy}")
        check_topic(topic)
        call, gateway = current_call.get(), connected()

        def asked(id_: int) -> wire.Publish:
            return wire.Publish(id_, call, topic, payload)

        try:
            is_granted = granted(gateway, topic)
            if policy != "AllOrException" and is_granted:
                gateway.tell(asked)
                return
            reply = gateway.ask(asked) if is_granted else gateway.deny(asked)
            if not reply.ok:
                raise_for(reply)
        except RequestFailed as error:
            raise InvocationException(f"Failed to invoke function due to {error}") from None

    def get_thing_shadow(self, **given: Any) -> dict[str, bytes]:
        """thingName; shadowName for a named one."""
        return _shadow("get", given)

    def update_thing_shadow(self, **given: Any) -> dict[str, bytes]:
        """thingName, payload; shadowName for a named one."""
        return _shadow("update", given, _payload(_required(given, "payload")))

    def delete_thing_shadow(self, **given: Any) -> dict[str, bytes]:
        """thingName; shadowName for a named one."""
        return _shadow("delete", given)


class LambdaClient:
    """greengrasssdk.client("lambda")."""

    def __init__(self, endpoint: str = "localhost", port: int = 8000) -> None:
        """The SDK's; nothing listens there."""

    def invoke(self, **given: Any) -> dict[str, Any]:
        """FunctionName (a name or an ARN), Payload, InvocationType, ClientContext (base64), Qualifier."""
        if "FunctionName" not in given:
            raise ValueError(
                '"FunctionName" argument of Lambda.Client.invoke is a required argument but was not provided.'
            )
        name = lambda_.name_of(given["FunctionName"])
        asked = invoking(name, _payload(given.get("Payload", b"")), _context(given.get("ClientContext", b"")))
        kind = given.get("InvocationType", "RequestResponse")
        if kind not in {"RequestResponse", "Event"}:
            raise ValueError(f"Invalid value for InvocationType: {kind}")
        try:
            if kind == "Event":
                connected().tell(asked)
                return {"Payload": b"", "FunctionError": ""}
            reply = connected().ask(asked)
        except RequestFailed as error:
            raise InvocationException(f"Failed to invoke function due to {error}") from None
        if reply.ok:
            return {"Payload": StreamingBody(reply.payload), "FunctionError": ""}
        if reply.error in _REFUSALS:
            raise InvocationException(f"Failed to invoke function due to {reply.error}: {reply.message}")
        told = json.dumps({"errorType": reply.error, "errorMessage": reply.message}).encode()
        return {"Payload": told, "FunctionError": "Unhandled"}


class SecretsClient:
    """greengrasssdk.client("secretsmanager")."""

    def get_secret_value(self, **given: Any) -> dict[str, Any]:
        """SecretId: the name that the gateway file gives it, or an ARN that ends in it."""
        name = _required(given, "SecretId")
        if given.get("VersionId"):
            raise SecretsManagerError("Query by VersionId is not yet supported")
        if given.get("VersionStage", "AWSCURRENT") not in {"", "AWSCURRENT"}:
            raise SecretsManagerError("Only the stage AWSCURRENT is kept")
        if name.startswith("arn:"):
            name = name.rpartition(":")[2]
            name = name if name in connected().settings.secrets else name[:-7]  # AWS adds six letters
        try:
            value = secret(name)
        except RequestFailed as error:
            kind = "ResourceNotFoundException" if isinstance(error, RequestDenied) else "InternalServiceError"
            raise SecretsManagerError(
                f"Request for secret value returned error code {kind} with message {error}"
            ) from None
        return {
            "ARN": f"arn:aws:secretsmanager:local:000000000000:secret:{name}",
            "Name": name,
            "VersionId": "AWSCURRENT",
            "SecretString": value,
            "VersionStages": ["AWSCURRENT"],
        }


_REFUSALS: Final = {"denied", "not_found", "timeout", "unavailable", "congested", "refused", "too_large"}
_CLIENTS: Final = {"iot-data": IoTDataClient, "lambda": LambdaClient, "secretsmanager": SecretsClient}


def client(client_type: str, *arguments: Any, **given: Any) -> Any:
    """A client of one of the services."""
    if client_type not in _CLIENTS:
        raise Exception(f"Client type {client_type!r} is not recognized.")
    return _CLIENTS[client_type](*arguments, **given)


MODULES: Final[dict[str, dict[str, Any]]] = {
    "": {"client": client, "StreamingBody": StreamingBody, "__version__": "1.6.1", "INTERFACE_VERSION": "1.5"},
    "IoTDataPlane": {"Client": IoTDataClient, "ShadowError": ShadowError},
    "Lambda": {
        "Client": LambdaClient,
        "InvocationException": InvocationException,
        "StreamingBody": StreamingBody,
    },
    "SecretsManager": {"Client": SecretsClient, "SecretsManagerError": SecretsManagerError},
}


def _required(given: dict[str, Any], name: str) -> Any:
    if name not in given:
        raise ValueError(f'Parameter "{name}" is a required parameter but was not provided.')
    return given[name]


def _payload(given: Any) -> bytes:
    if hasattr(given, "read"):
        given = given.read()
    if isinstance(given, str):
        return given.encode()
    if not isinstance(given, bytes | bytearray | memoryview):
        raise TypeError(f"a payload is bytes, str or a file: {type(given).__name__}")
    return bytes(given)


def _context(given: Any) -> bytes:
    if not hasattr(given, "decode"):
        raise ValueError(
            '"ClientContext" argument must be a byte string or support a decode method which returns a string'
        )
    try:
        return base64.b64decode(given, validate=True)
    except ValueError:
        raise ValueError('"ClientContext" argument of Lambda.Client.invoke must be base64 encoded.') from None


def _shadow(action: wire.Action, given: dict[str, Any], payload: bytes = b"") -> dict[str, bytes]:
    thing, name = _required(given, "thingName"), given.get("shadowName") or ""
    try:
        reply = connected().ask(shadowing(action, thing, name, payload))
        if not reply.ok:
            raise_for(reply)
    except RequestFailed as error:
        code = _CODES.get(error.error, 500)
        raise ShadowError(
            f'Request for shadow state returned error code {code} with message "{error.message or error.error}"'
        ) from None
    return {"payload": reply.payload}


_CODES: Final = {
    "invalid": 400,
    "denied": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "congested": 429,
    "unavailable": 503,
    "timeout": 504,
}
