"""All functions of a gateway: opened at start, attached to the router, watched for new code, stopped at the end.

Invariants: what is wrong at start is a ConfigError; what is wrong later changes nothing and is told. A function that is
taken out of the file keeps its inbox on the disk; it is told how much is in it.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.cloud.shadows import Shadows
from edge.config import Config, RouteSettings
from edge.config_functions import FunctionSettings
from edge.errors import ConfigError, EdgeLoopError, InputRejected
from edge.functions.asks import Asks
from edge.functions.child import Spawn
from edge.functions.crew import Version
from edge.functions.figures import FunctionStatus
from edge.functions.grants import Grants
from edge.functions.inbox import Inbox, inbox_settings
from edge.functions.invocation import Invocation
from edge.functions.keeping import Before, kept_routes
from edge.functions.pool import Pool
from edge.functions.requirements import tidy
from edge.functions.surroundings import Answer, Surroundings
from edge.functions.versions import CodeError, Signature, forget_others, signature, take_over
from edge.functions.wire import Invoke, Shadow
from edge.log import Log
from edge.logs import log_event
from edge.loops import Node
from edge.messages import Target
from edge.metrics import Metrics
from edge.outbox.lanes import Lanes
from edge.outbox.opening import open_stream
from edge.outbox.report import CURSOR, backlog
from edge.outbox.stream import Stream
from edge.router import Router, takes

FOLDER: Final = "functions"
INBOX: Final = "inbox"
WATCH_INTERVAL_S: Final = 0.25
STOP_PATIENCE_S: Final = 5.0
LOOK_S_A_FILE, LOOK_S_MAX = 0.002, 5.0  # folders of very many files are looked at more seldom
BEGIN_S: Final = 10.0  # an invocation waits so long for its turn
AGAIN_S: Final = 60.0  # after requirements could not be installed

_log = logging.getLogger(__name__)

Routes = tuple[RouteSettings, ...]
MakeSpawn = Callable[[Callable[[Coroutine[Any, Any, None]], object]], Spawn]


class _Function:
    """One, as it is now."""

    __slots__ = ("again_at", "folder", "looked", "number", "pool", "renewal", "routes", "seen", "settings", "versions")

    def __init__(self, settings: FunctionSettings, folder: str, seen: Signature, pool: Pool, routes: Routes) -> None:
        self.settings, self.folder, self.seen, self.pool = settings, folder, seen, pool
        self.looked = seen
        """How its files were at the last look."""
        self.number = 1
        self.routes = routes
        self.versions = {1: Before(settings.target, settings.publish, routes)}
        """What each version that is left was given."""
        self.renewal: asyncio.Task[None] | None = None
        """While new code or settings are taken over."""
        self.again_at = 0.0

    def give_up_renewal(self) -> None:
        if self.renewal is not None:
            self.renewal.cancel()


class Functions:
    """make_spawn: given what creates tasks, gives what starts processes. letters: the dead-letter stream of a name.

    changed: called when inboxes or `kept_routes` came or went. is_behind: whether a changed gateway file is not taken
    yet. rules: those at work, as they may close a loop. Raises ConfigError."""

    def __init__(
        self,
        config: Config,
        router: Router,
        metrics: Metrics,
        make_spawn: MakeSpawn,
        *,
        letters: Callable[[str], Target | None],
        shadows: Shadows,
        changed: Callable[[], None] = lambda: None,
        is_behind: Callable[[], bool] = lambda: False,
        rules: Callable[[], Sequence[Node]] = lambda: (),
        now: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._router, self._metrics = config, router, metrics
        self._is_behind, self._rules, self._base = is_behind, rules, config.folder
        self._letters, self._changed, self._now, self._unix_time = letters, changed, now, unix_time
        self._group: asyncio.TaskGroup | None = None
        self._around = Surroundings(
            config.gateway.name,
            make_spawn(self._create_task),
            self._create_task,
            router.route,
            self._ask,
            metrics,
            now,
            region=config.cloud.aws_region if config.cloud is not None else "",
        )
        self._asks = Asks(config.gateway.name, shadows, self._create_task, self._invoke, self._forget)
        self._functions: dict[str, _Function] = {}
        self._leaving: list[_Function] = []
        self._stop = asyncio.Event()
        self._tell_gone()
        for place, settings in enumerate(config.functions, 1):
            try:
                self._add(settings)
            except CodeError as error:
                fix = "Name files that are there and that the gateway may read."
                raise ConfigError(config.file, f"function[{place}]", str(error), fix) from None

    # -- the life of all

    async def run(self) -> None:
        """Until `stop` is called; what is under way may end then. Cancelled, it ends at once."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for function in self._functions.values():
                function.pool.start()
            while not self._stop.is_set():
                self._watch()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_INTERVAL_S):
                        await self._stop.wait()
            for function in self._functions.values():
                function.give_up_renewal()  # requirements may take minutes to install; the next start begins anew
            async with asyncio.TaskGroup() as stopping:
                for function in self._functions.values():
                    stopping.create_task(function.pool.stop(STOP_PATIENCE_S))
        self._around.spawn.close()

    def stop(self) -> None:
        self._stop.set()

    @property
    def inboxes(self) -> dict[str, Stream]:
        """By the name that routes know them by."""
        return {one.settings.target: one.pool.inbox.stream for one in (*self._leaving, *self._functions.values())}

    @property
    def kept_routes(self) -> list[RouteSettings]:
        """Those of what still runs as the file was before (`keeping`)."""
        running = (*self._functions.values(), *self._leaving)
        before = [before for function in running for before in function.versions.values()]
        return kept_routes(self._config, self._rules(), before)

    def apply(self, config: Config) -> None:
        """The gateway file is like this now: called between two turns of the loop, with the router's routes. What
        cannot be taken over is told, and stays as it was."""
        if self._stop.is_set():
            return
        self._config = config
        wanted = {settings.name: settings for settings in config.functions}
        for name in [name for name in self._functions if name not in wanted]:
            self._remove(name)
        for name, settings in wanted.items():
            function = self._functions.get(name)
            try:
                if function is not None:
                    self._change(function, settings)
                elif (before := self._leaving_of(name)) is not None:  # two would write to one inbox: it waits for that
                    self._attach(settings, before.pool.inbox.stream)
                else:
                    self._add(settings).pool.start()
            except EdgeLoopError as error:
                self._tell_refused(name, str(error))
        self._changed()

    # -- what is asked

    def status(self) -> tuple[FunctionStatus, ...]:
        return tuple(function.pool.status() for function in self._functions.values())

    def show(self, name: str) -> FunctionStatus:
        """Raises InputRejected for a name that is no function's, as `invoke` does."""
        return self._function(name).pool.status()

    async def invoke(self, name: str, topic: str, payload: bytes) -> dict[str, Any]:
        """Call the live function once, past its inbox. What it publishes goes out."""
        function = self._function(name)
        ended = asyncio.get_running_loop().create_future()
        invocation = Invocation(topic, payload, lambda one: None if ended.done() else ended.set_result(one))
        function.pool.invoke(invocation)
        try:
            async with asyncio.timeout(function.settings.timeout_s + BEGIN_S):
                await ended
        except TimeoutError:
            status = function.pool.status()
            problem = f"the function is {status.state}"
            problem += f"; its last error was: {status.last_error}" if status.last_error else ""
            invocation.failed("NotCalled", problem, "", 0.0)
        finally:
            function.pool.forget(invocation)
        return invocation.row()

    def _function(self, name: str) -> _Function:
        try:
            return self._functions[name]
        except KeyError:
            known = ", ".join(self._functions) or "none"
            raise InputRejected("no_such_function", f"{name!r}; there are {known}") from None

    def _ask(self, grants: Grants, request: Shadow | Invoke, answer: Answer, left_s: float) -> None:
        self._asks.ask(grants, request, answer, left_s)

    def _invoke(self, name: str, invocation: Invocation) -> bool:
        function = self._functions.get(name)
        if function is not None:
            function.pool.invoke(invocation)
        return function is not None

    def _forget(self, name: str, invocation: Invocation) -> None:
        if (function := self._functions.get(name)) is not None:
            function.pool.forget(invocation)

    # -- coming, changing, going

    def _create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(_contained(coroutine))

    def _add(self, settings: FunctionSettings) -> _Function:
        config = self._config
        folder = os.path.join(config.gateway.data_dir, FOLDER, settings.name)
        seen = signature(settings, self._base)
        launch, digest = take_over(settings, folder, self._base)
        version = Version(1, launch, digest)
        forget_others(folder, [version])
        stream = open_stream(
            inbox_settings(settings),
            f"{folder}/{INBOX}",
            f"{config.gateway.name}/{settings.target}",
            self._metrics,
            file=config.file,
            now=self._now,
            unix_time=self._unix_time,
        )
        inbox = Inbox(stream, self._metrics, self._now)
        letters = self._letters(settings.dead_letter) if settings.dead_letter else None
        pool = Pool(version, inbox, letters, self._around)
        if settings.requirements:
            pool.is_held, seen = True, ()  # until they are installed
        function = self._functions[settings.name] = _Function(settings, folder, seen, pool, _routes(config, settings))
        self._attach(settings, stream)
        return function

    def _attach(self, settings: FunctionSettings, stream: Stream) -> None:
        def refuses(sender: str, topic: str) -> str:
            return "" if any(takes(one, sender, topic) for one in settings.subscribe) else "not_subscribed"

        self._router.attach(settings.target, stream, refuses)

    def _remove(self, name: str) -> None:
        function = self._functions.pop(name)
        self._router.detach(function.settings.target)
        function.give_up_renewal()
        left = function.pool.inbox.backlog
        log_event(_log, "function_removed", function=name, messages_kept=left)
        self._leaving.append(function)
        self._create_task(self._leave(function))

    async def _leave(self, function: _Function) -> None:
        try:
            await function.pool.stop(STOP_PATIENCE_S)
        finally:
            self._leaving.remove(function)
            self._return(function.settings.name)
            self._changed()

    def _return(self, name: str) -> None:
        """One that left may be back in the file meanwhile."""
        wanted = next((one for one in self._config.functions if one.name == name), None)
        if wanted is None:
            self._router.detach(f"function:{name}")
        elif not self._stop.is_set():
            try:
                self._add(wanted).pool.start()
            except EdgeLoopError as error:
                self._tell_refused(name, str(error))

    def _leaving_of(self, name: str) -> _Function | None:
        return next((one for one in self._leaving if one.settings.name == name), None)

    def _change(self, function: _Function, settings: FunctionSettings) -> None:
        function.routes = _routes(self._config, settings)
        version = function.pool.version
        if version.settings == settings:  # what runs, or is being tried, is what the file says: only routes changed
            function.versions[version.number] = Before(settings.target, settings.publish, function.routes)
        if function.settings == settings:
            return
        self._attach(settings, function.pool.inbox.stream)
        function.pool.inbox.stream.change(inbox_settings(settings))
        function.pool.letters(self._letters(settings.dead_letter) if settings.dead_letter else None)
        function.settings = settings
        function.seen = ()  # whatever the files are now, they go with the new settings

    def _forget_versions(self) -> None:
        """Of which nothing is left: their routes end."""
        gone = False
        for function in (*self._functions.values(), *self._leaving):
            alive = function.pool.versions
            for number in [number for number in function.versions if number not in alive]:
                del function.versions[number]
                gone = True
        if gone:
            self._changed()

    def _watch(self) -> None:
        self._forget_versions()
        for function in self._functions.values():
            if function.renewal is not None or not function.pool.is_started or self._now() < function.again_at:
                continue
            before, seen = function.looked, signature(function.settings, self._base)
            function.looked = seen
            function.again_at = self._now() + min(len(seen) * LOOK_S_A_FILE, LOOK_S_MAX)
            # Code and the gateway file that are saved together go together: the file is looked at as often, and taken
            # when it has rested as long.
            if seen != function.seen and seen == before and not self._is_behind():
                function.renewal = self._create_task(self._renew(function, seen))
                function.renewal.add_done_callback(partial(_renewed, function))

    async def _renew(self, function: _Function, seen: Signature) -> None:
        settings, routes = function.settings, function.routes
        try:
            launch, digest = await asyncio.to_thread(take_over, settings, function.folder, self._base)
            site = await self._around.spawn.install(settings, function.folder)
        except EdgeLoopError as error:
            if function.pool.problem != str(error):
                function.pool.problem = str(error)
                self._tell_refused(settings.name, str(error))
            function.again_at = self._now() + (AGAIN_S if settings.requirements else 0.0)
            return
        function.pool.problem = ""
        function.again_at = 0.0
        if function.settings is settings:  # else there is more to take over
            function.seen = seen
        pool = function.pool
        old = pool.version
        if digest == old.digest and settings == old.settings and not pool.is_held:
            return
        function.number += 1
        log_event(_log, "function_changed", function=settings.name, version=digest)
        launch = msgspec.structs.replace(launch, site=site)
        routes = function.routes if function.settings == settings else routes
        function.versions[function.number] = Before(settings.target, settings.publish, routes)
        self._changed()
        pool.change(Version(function.number, launch, digest))
        kept = pool.runnable
        await asyncio.to_thread(forget_others, function.folder, kept)
        sites = [Path(one.launch.site) for one in kept if one.launch.site]
        await asyncio.to_thread(tidy, Path(function.folder) / "site", sites)

    def _tell_refused(self, name: str, problem: str) -> None:
        log_event(_log, "function_change_refused", level=logging.WARNING, function=name, problem=problem, old_runs=True)

    def _tell_gone(self) -> None:
        """Functions that have an inbox and are no longer in the file."""
        known = {settings.name for settings in self._config.functions}
        base = os.path.join(self._config.gateway.data_dir, FOLDER)
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(base)):
                if name not in known and (left := held(f"{base}/{name}/{INBOX}")):
                    log_event(_log, "function_gone", level=logging.WARNING, function=name, messages_kept=left)


def _renewed(function: _Function, renewal: asyncio.Task[None]) -> None:
    function.renewal = None


def _routes(config: Config, settings: FunctionSettings) -> Routes:
    return tuple(route for route in config.all_routes if route.source == settings.target)


async def _contained(coroutine: Coroutine[Any, Any, None]) -> None:
    """Whatever goes wrong with one function, the gateway goes on."""
    try:
        await coroutine
    except Exception:  # noqa: BLE001 - it is logged, and is this function's alone
        _log.exception("function_task_failed")


def held(folder: str) -> int:
    """How many messages an inbox holds that nobody has open."""
    try:
        log = Log.open_read_only(folder)
    except OSError:
        return 0
    try:
        return backlog(log, Lanes(log.state.get(CURSOR), log.first, live_first=False).sent)
    finally:
        log.close()
