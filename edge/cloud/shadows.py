"""Device shadows over a connection: get, update, delete of classic and named ones (AWS IoT, device-shadow-mqtt).

The deciding part is pure: `ask` says what to publish and where the answer comes, `answered` what an answer means.
`Shadows` carries it over the seam. One request is told from another by its clientToken, as others may ask for the same
shadow; a token of the caller's own is given back in the answer.
"""

import asyncio
import itertools
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import msgspec

from edge.cloud.connection import REQUEST_TIMEOUT_S, Connection
from edge.errors import ConnectionFailed, EdgeLoopError
from edge.messages import Message

Action = Literal["get", "update", "delete"]

# Actions of shadows whose answers are subscribed to. Each takes two of the 50 subscriptions that AWS IoT grants a
# connection; the two that are left are for what routes take from the cloud.
ANSWERED_MAX: Final = 24

_THING: Final = re.compile(r"[A-Za-z0-9:_-]{1,128}")
_NAME: Final = re.compile(r"[A-Za-z0-9:_-]{1,64}")
_LOOK_S: Final = 0.1
_ERRORS: Final = {
    400: "invalid",
    401: "denied",
    403: "denied",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    415: "invalid",
    422: "invalid",
    429: "congested",
}


class ShadowFailed(EdgeLoopError):
    """error: `invalid`, `denied`, `not_found`, `conflict`, `too_large`, `too_many`, `congested`, `timeout`,
    `unavailable`; status: the cloud's code, 0 when it did not answer; message: for people."""

    code = "shadow_failed"

    def __init__(self, error: str, message: str, status: int = 0) -> None:
        self.error, self.message, self.status = error, message, status
        super().__init__(f"{error}: {message}")


class Asked(msgspec.Struct, frozen=True):
    """One request. token: what its answer carries. own_token: the caller's, None without."""

    topic: str
    payload: bytes
    accepted: str
    rejected: str
    token: str
    own_token: Any = None


def ask(action: Action, thing: str, name: str, payload: bytes, token: str) -> Asked:
    """name: empty for the classic shadow. payload: a JSON object; nothing but for an update. Raises ShadowFailed:
    `invalid`."""
    if not _THING.fullmatch(thing):
        raise ShadowFailed("invalid", f"no name of a thing: {thing[:130]!r}")
    if name and not _NAME.fullmatch(name):
        raise ShadowFailed("invalid", f"no name of a shadow: {name[:70]!r}")
    own = None
    document: dict[str, msgspec.Raw] = {}
    if payload or action == "update":
        try:
            document = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
            own = msgspec.json.decode(document["clientToken"]) if "clientToken" in document else None
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ShadowFailed("invalid", f"the document is no JSON object: {error!s:.100}") from None
    document["clientToken"] = msgspec.Raw(msgspec.json.encode(token))
    topic = f"$aws/things/{thing}/shadow/{f'name/{name}/' if name else ''}{action}"
    return Asked(topic, msgspec.json.encode(document), *_answers(topic), token, own)


def _answers(topic: str) -> tuple[str, str]:
    return f"{topic}/accepted", f"{topic}/rejected"


class _Token(msgspec.Struct):
    clientToken: str | None = None  # noqa: N815 - as AWS writes it


class _Rejected(msgspec.Struct):
    code: int = 500
    message: str = ""


def is_answer(asked: Asked, topic: str, payload: bytes) -> bool:
    """Whether this is the answer to that request."""
    if topic not in {asked.accepted, asked.rejected}:
        return False
    try:
        return msgspec.json.decode(payload, type=_Token).clientToken == asked.token
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return False


def answered(asked: Asked, topic: str, payload: bytes) -> bytes:
    """The document that the cloud sent, with the caller's clientToken in place of ours. Raises ShadowFailed."""
    try:
        if topic == asked.rejected:
            rejected = msgspec.json.decode(payload, type=_Rejected)
            error = _ERRORS.get(rejected.code, "unavailable" if rejected.code >= 500 else "invalid")
            raise ShadowFailed(error, rejected.message[:500], rejected.code)
        document = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ShadowFailed("unavailable", f"the answer is not as it should be: {error!s:.100}") from None
    document.pop("clientToken", None)
    if asked.own_token is not None:
        document["clientToken"] = msgspec.Raw(msgspec.json.encode(asked.own_token))
    return msgspec.json.encode(document)


class Shadows:
    """connection: to the cloud; None where there is none. prefix: of the tokens, such as the gateway's name and boot.
    All raise ShadowFailed within timeout_s. While the cloud is away nothing is sent: an update that failed for that
    reason does not come true later. answered_max: beyond it the subscriptions used least recently are let go."""

    def __init__(
        self,
        connection: Connection | None,
        prefix: str,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        answered_max: int = ANSWERED_MAX,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection, self._prefix, self._timeout_s = connection, prefix[:40], timeout_s
        self._answered_max = answered_max
        self._answered: dict[str, int] = {}
        """By topic, how many of its requests are under way; the least recently used first."""
        self._numbers = itertools.count(1)
        self._sleep = sleep

    async def get(self, thing: str, name: str = "") -> bytes:
        """The document: state, metadata, version, timestamp."""
        return await self.request("get", thing, name)

    async def update(self, thing: str, payload: bytes, name: str = "") -> bytes:
        """payload: `{"state": {"reported": …, "desired": …}, "version": …}`. Returns what was accepted of it."""
        return await self.request("update", thing, name, payload)

    async def delete(self, thing: str, name: str = "") -> bytes:
        return await self.request("delete", thing, name)

    async def request(
        self, action: Action, thing: str, name: str = "", payload: bytes = b"", *, patience_s: float = math.inf
    ) -> bytes:
        """patience_s: the least of it and of the time-out counts."""
        asked = ask(action, thing, name, payload, f"{self._prefix}-{next(self._numbers)}")
        if self._connection is None:
            raise ShadowFailed("unavailable", "the gateway file has no [cloud]")
        self._hold(self._connection, asked.topic)
        try:
            return await self._request(self._connection, asked, patience_s)
        finally:
            self._answered[asked.topic] -= 1

    async def _request(self, connection: Connection, asked: Asked, patience_s: float) -> bytes:
        loop = asyncio.get_running_loop()
        until = loop.time() + min(self._timeout_s, patience_s)
        while not connection.state.connected:
            if loop.time() >= until:
                state = connection.state
                told = f"{state.problem}. {state.remedy}" if state.problem else "not connected yet"
                raise ShadowFailed("unavailable", f"the cloud is away: {told}")
            await self._sleep(min(_LOOK_S, until - loop.time()))
        try:
            answer = await connection.request(
                asked.topic,
                asked.payload,
                answers=_answers(asked.topic),
                is_answer=lambda message: _is(asked, message),
                timeout_s=max(until - loop.time(), 0.0),
            )
        except ConnectionFailed as failed:
            word = {"no_answer": "timeout", "congested": "congested", "refused": "denied"}.get(failed.cause)
            raise ShadowFailed(word or "unavailable", f"{failed.problem}. {failed.remedy}") from None
        return answered(asked, answer.topic, answer.payload)

    def _hold(self, connection: Connection, topic: str) -> None:
        """Have room for its answers."""
        if topic not in self._answered and len(self._answered) >= self._answered_max:
            idle = next((one for one, under_way in self._answered.items() if not under_way), None)
            if idle is None:
                raise ShadowFailed("too_many", f"requests to {self._answered_max} shadows are under way")
            del self._answered[idle]
            connection.forget_answers(_answers(idle))
        self._answered[topic] = self._answered.pop(topic, 0) + 1


def _is(asked: Asked, message: Message) -> bool:
    return is_answer(asked, message.topic, message.payload)
