"""What functions ask the gateway for beside publishing: device shadows, and calls of other functions.

Who may: a shadow's action takes the grant to publish on its topic, `$aws/things/THING/shadow/ACTION` (with `name/NAME/`
for a named one); another function is invoked by whoever names it in `invoke`. What is not answered in time is told
while the call that asks still has time to hear it.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edge.cloud.shadows import ShadowFailed, Shadows
from edge.functions.grants import Denial, Grants
from edge.functions.invocation import Invocation
from edge.functions.surroundings import Answer
from edge.functions.wire import Invoke, Reply, Shadow

UNDER_WAY_MAX: Final = 64
HEARD_S: Final = 1.0  # what a call keeps for itself of its time, at most half


def patience_s(left_s: float) -> float:
    """How long to wait for an answer, of what a call may still take."""
    return max(left_s - HEARD_S, left_s / 2)


class Asks:
    """invoke(function, invocation): False where there is no such function; forget: nobody waits for it any more."""

    def __init__(
        self,
        thing: str,
        shadows: Shadows,
        create_task: Callable[[Coroutine[Any, Any, None]], object],
        invoke: Callable[[str, Invocation], bool],
        forget: Callable[[str, Invocation], None],
    ) -> None:
        self._forget = forget
        self._thing, self._shadows, self._create_task, self._invoke = thing, shadows, create_task, invoke
        self._under_way = 0

    def ask(self, grants: Grants, request: Shadow | Invoke, answer: Answer, left_s: float) -> None:
        if isinstance(request, Invoke):
            self._ask_function(grants, request, answer, patience_s(left_s))
            return
        thing = request.thing or self._thing
        named = f"name/{request.name}/" if request.name else ""
        try:
            grants.may_publish(f"$aws/things/{thing}/shadow/{named}{request.action}")
        except Denial as denial:
            answer(Reply(request.id, ok=False, error="denied", message=denial.detail))
            return
        if self._under_way >= UNDER_WAY_MAX:
            answer(Reply(request.id, ok=False, error="congested", message=f"{UNDER_WAY_MAX} are under way"))
            return
        self._under_way += 1
        self._create_task(self._ask_shadow(request, thing, answer, patience_s(left_s)))

    async def _ask_shadow(self, request: Shadow, thing: str, answer: Answer, within_s: float) -> None:
        try:
            document = await self._shadows.request(
                request.action, thing, request.name, request.payload, patience_s=within_s
            )
        except ShadowFailed as failed:
            answer(Reply(request.id, ok=False, error=failed.error, message=failed.message))
        else:
            answer(Reply(request.id, payload=document))
        finally:
            self._under_way -= 1

    def _ask_function(self, grants: Grants, request: Invoke, answer: Answer, within_s: float) -> None:
        late: asyncio.TimerHandle | None = None

        def ended(one: Invocation) -> None:
            if late is not None:
                late.cancel()
            if one.error:
                answer(Reply(request.id, ok=False, error=one.error, message=one.message))
            else:
                answer(Reply(request.id, payload=one.result or b""))

        invocation = Invocation("", request.payload, ended, context=request.context)
        if not grants.may_invoke(request.function) or not self._invoke(request.function, invocation):
            message = f"{request.function[:64]!r} is no function that stands in its `invoke`"
            answer(Reply(request.id, ok=False, error="denied", message=message))
        elif request.id and within_s < math.inf and not invocation.is_over:
            message = f"{request.function!r} gave no answer within {within_s:.3g} s"
            late = asyncio.get_running_loop().call_later(within_s, self._give_up, request.function, invocation, message)

    def _give_up(self, function: str, invocation: Invocation, message: str) -> None:
        invocation.failed("timeout", message, "", 0.0)
        self._forget(function, invocation)
