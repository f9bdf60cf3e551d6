"""What every function's pool is given."""

import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from edge.functions.child import Spawn
from edge.functions.grants import Grants
from edge.functions.wire import Invoke, Reply, Shadow
from edge.messages import Message, Origin
from edge.metrics import Metrics

Answer = Callable[[Reply], None]


class Ask(Protocol):
    """What workers ask for beside publishing. grants: of the one that asks."""

    def __call__(self, grants: Grants, request: Shadow | Invoke, answer: Answer, left_s: float) -> None:
        """answer: called once, unless the request's id is 0. left_s: how long the call that asks may still take."""


class Surroundings(msgspec.Struct, frozen=True):
    """thing: the gateway's name. route: as Router.route. create_task: of the group that lives as long as the functions.
    now: the monotonic clock. region: of AWS, where the cloud is AWS IoT Core."""

    thing: str
    spawn: Spawn
    create_task: Callable[[Coroutine[Any, Any, None]], object]
    route: Callable[[str, str, Sequence[Message], Origin], None]
    ask: Ask
    metrics: Metrics
    now: Callable[[], float]
    region: str = ""

    @property
    def group(self) -> str:
        """An id of the gateway, the same for good, as Greengrass has one of a group."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"edgeloop:{self.thing}"))
