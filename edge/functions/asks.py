"""What functions ask the gateway for beside publishing: device shadows, and calls of other functions.

Who may: a shadow's action takes the grant to publish on its topic, `$aws/things/THING/shadow/ACTION` (with `name/NAME/`
for a named one); another function is invoked by whoever names it in `invoke`.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from edge.cloud.shadows import ShadowFailed, Shadows
from edge.functions.grants import Denial, Grants
from edge.functions.invocation import Invocation
from edge.functions.surroundings import Answer
from edge.functions.wire import Invoke, Reply, Shadow

UNDER_WAY_MAX: Final = 64


class Asks:
    """invoke(function, invocation): False where there is no such function."""

    def __init__(
        self,
        thing: str,
        shadows: Shadows,
        create_task: Callable[[Coroutine[Any, Any, None]], object],
        invoke: Callable[[str, Invocation], bool],
    ) -> None:
        self._thing, self._shadows, self._create_task, self._invoke = thing, shadows, create_task, invoke
        self._under_way = 0

    def ask(self, grants: Grants, request: Shadow | Invoke, answer: Answer) -> None:
        if isinstance(request, Invoke):
            self._ask_function(grants, request, answer)
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
        self._create_task(self._ask_shadow(request, thing, answer))

    async def _ask_shadow(self, request: Shadow, thing: str, answer: Answer) -> None:
        try:
            document = await self._shadows.request(request.action, thing, request.name, request.payload)
        except ShadowFailed as failed:
            answer(Reply(request.id, ok=False, error=failed.error, message=failed.message))
        else:
            answer(Reply(request.id, payload=document))
        finally:
            self._under_way -= 1

    def _ask_function(self, grants: Grants, request: Invoke, answer: Answer) -> None:
        def ended(one: Invocation) -> None:
            if one.error:
                answer(Reply(request.id, ok=False, error=one.error, message=one.message))
            else:
                answer(Reply(request.id, payload=one.result or b""))

        invocation = Invocation("", request.payload, ended, context=request.context)
        if not grants.may_invoke(request.function) or not self._invoke(request.function, invocation):
            message = f"{request.function[:64]!r} is no function that stands in its `invoke`"
            answer(Reply(request.id, ok=False, error="denied", message=message))
