"""What every function's pool is given."""

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

    def __call__(self, grants: Grants, request: Shadow | Invoke, answer: Answer) -> None:
        """answer: called once, unless the request's id is 0."""


class Surroundings(msgspec.Struct, frozen=True):
    """thing: the gateway's name. route: as Router.route. create_task: of the group that lives as long as the functions.
    now: the monotonic clock."""

    thing: str
    spawn: Spawn
    create_task: Callable[[Coroutine[Any, Any, None]], object]
    route: Callable[[str, str, Sequence[Message], Origin], None]
    ask: Ask
    metrics: Metrics
    now: Callable[[], float]
