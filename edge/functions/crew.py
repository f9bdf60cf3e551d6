"""The workers of one function: started, replaced, let go.

Invariants:
- At most `workers` of the current version run, and beside them those that leave and one that tries a new version.
- A new version takes over when its first worker is ready, not before; one that does not start changes nothing.
- Whoever ends, for whatever reason, ends nothing else; starts are held back by Backoff.
- What a worker had been given when it ended is handed back once, by `Team.lost`.
"""

import logging
from typing import Final, Protocol

import msgspec

from edge.config_functions import FunctionSettings
from edge.errors import EdgeLoopError, InputRejected
from edge.functions.allowance import Allowance
from edge.functions.backoff import Backoff
from edge.functions.child import Child, Launch, Pipe
from edge.functions.grants import Grants
from edge.functions.sandbox import Ending, FolderFull, NotHeld, Refused
from edge.functions.slot import Slot, State
from edge.functions.surroundings import Surroundings
from edge.functions.wire import Configure, FromWorker, Ready, StartFailed, Stop, ToWorker
from edge.logs import log_event

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
UNSENT_BYTES_MAX: Final = 32 * 1024 * 1024  # more than all calls and answers that a worker may have to take in
LAST_WORDS_CHARACTERS_MAX: Final = 400

_log = logging.getLogger(__name__)


class Version(msgspec.Struct, frozen=True):
    """Code and settings that belong together. number: rises."""

    number: int
    launch: Launch
    digest: str = ""

    @property
    def settings(self) -> FunctionSettings:
        return self.launch.settings


class Team(Protocol):
    """Who gives the crew its work."""

    def received(self, slot: Slot, frames: list[FromWorker]) -> None:
        """All but `Ready` and `StartFailed`."""

    def printed(self, slot: Slot, pipe: Pipe, data: bytes) -> None: ...
    def tried(self, slot: Slot, what: Refused, detail: str) -> None:
        """Something that the kernel refused it."""

    def lost(self, slot: Slot, ending: Ending) -> None:
        """It has ended; its calls are still in the slot."""

    def changed(self) -> None:
        """There may be room for calls, or other times to wait for."""

    def is_ready(self, slot: Slot, ready: Ready) -> None: ...


class Crew:
    """team: who gives it its work."""

    def __init__(self, version: Version, around: Surroundings, team: Team) -> None:
        self.version = version
        self.candidate: Version | None = None
        self._versions = {version.number: version}
        self.slots: list[Slot] = []
        self.want = 0
        self.restarts = self.starts = 0
        self.last_error = self.refused = self.tidied = ""
        """refused: why none can be started here, while that is so. tidied: what was taken out of its folder last."""
        self.backoff = Backoff()
        self._around, self._now, self._team = around, around.now, team
        self._name = version.settings.name
        self._numbers = 0
        self._stopping = self._is_proven = False

    @property
    def versions(self) -> list[Version]:
        """Those that somebody runs, or is to run."""
        needed = {self.version.number, *(slot.version for slot in self.slots)}
        needed |= {self.candidate.number} if self.candidate is not None else set()
        self._versions = {number: version for number, version in self._versions.items() if number in needed}
        return list(self._versions.values())

    # -- how many

    def look(self) -> None:
        """Start whoever is missing, end whoever is late."""
        now = self._now()
        for slot in self.slots:
            deadline = slot.deadline
            if deadline is not None and now >= deadline and not slot.why:
                self._end_late(slot)
        if self._stopping:
            return
        if self.candidate is not None:
            if not any(slot.version == self.candidate.number for slot in self.slots) and now >= self.backoff.until:
                self._start(self.candidate)
            if not self._current():
                return  # the candidate is awaited; the version before it has nobody any more, or never had
        if now >= self.backoff.until:
            for _ in range(self.want - len(self._current())):
                self._start(self.version)

    def next_look(self) -> float | None:
        """When `look` has something to do."""
        times = [slot.deadline for slot in self.slots if slot.deadline is not None and not slot.why]
        if not self._stopping and self._is_short():
            times.append(self.backoff.until)
        return min(times, default=None)

    def change(self, version: Version) -> None:
        """Let this take over when it is ready."""
        self._versions[version.number] = version
        for slot in self.slots:
            if self.candidate is not None and slot.version == self.candidate.number:
                self._end(slot, "replaced")
        self.backoff.reset()
        if self._is_proven:
            self.candidate = version
        else:  # what ran so far never was ready: there is nothing to go back to
            self.version, self.candidate = version, None
            for slot in self.slots:
                self._end(slot, "replaced")
        self.look()

    def let_go(self, slot: Slot) -> None:
        """It finishes what it has, and ends."""
        if slot.state is State.READY:
            slot.state = State.LEAVING
            self.look_at_leaving(slot)
        elif slot.state is State.STARTING:
            self._end(slot, "stopped")

    def look_at_leaving(self, slot: Slot) -> None:
        if slot.state is State.LEAVING and not slot.in_flight and not slot.stop_deadline:
            self.send(slot, Stop())
            self.flush(slot)
            if slot.is_program and slot.child is not None:
                slot.child.finish()
            slot.stop_deadline = self._now() + STOP_TIMEOUT_S

    def stop(self) -> None:
        """All finish what they have."""
        self._stopping, self.want = True, 0
        for slot in tuple(self.slots):
            self.let_go(slot)

    def kill(self) -> None:
        self._stopping, self.want = True, 0
        for slot in tuple(self.slots):
            self._end(slot, "stopped")

    # -- what is said

    def send(self, slot: Slot, struct: ToWorker) -> None:
        """It goes out with `flush`. Raises InputRejected for what no frame can carry."""
        slot.unsent.append(slot.codec.write(struct))

    def flush(self, slot: Slot) -> None:
        if slot.unsent and slot.child is not None:
            data, slot.unsent = b"".join(slot.unsent), []
            slot.child.write(data)
            if slot.child.unsent > UNSENT_BYTES_MAX:
                self._end(slot, "it does not read what it is told")

    def charge(self, slot: Slot, units: float) -> None:
        """For what it says beside its work."""
        self._spend(slot, slot.asides, units)

    def charge_asked(self, slot: Slot, units: float) -> bool:
        """Whether it has asked for more than its share."""
        return self._spend(slot, slot.asked, units)

    def charge_published(self, slot: Slot, units: float) -> bool:
        """Whether it has published more than its share."""
        return self._spend(slot, slot.published, units)

    def _spend(self, slot: Slot, allowance: Allowance, units: float) -> bool:
        """Who says too much is not heard for a while, nor are its answers."""
        wait_s = allowance.spend(units, self._now())
        if wait_s and slot.child is not None:
            slot.child.rest(wait_s)
        return wait_s > 0

    def break_off(self, slot: Slot, why: str) -> None:
        """It did what no worker does."""
        self._end(slot, why)

    # -- their lives

    def _is_short(self) -> bool:
        """Whether `look` would start somebody, if it were time."""
        if self.candidate is not None and not any(slot.version == self.candidate.number for slot in self.slots):
            return True
        current = len(self._current())
        return self.want > current and (self.candidate is None or current > 0)

    def _current(self) -> list[Slot]:
        number = self.version.number
        return [slot for slot in self.slots if slot.version == number and slot.state in {State.STARTING, State.READY}]

    def _start(self, version: Version) -> None:
        self._numbers += 1
        self.starts += 1
        settings = version.settings
        slot = Slot(
            self._numbers,
            version.number,
            self._now(),
            timeout_s=settings.timeout_s,
            start_timeout_s=START_TIMEOUT_S,
            is_program=bool(settings.exec),
            grants=Grants(settings.publish, settings.invoke),
        )
        self.slots.append(slot)
        self._around.create_task(self._run(slot, version))

    async def _run(self, slot: Slot, version: Version) -> None:
        settings = version.settings
        ear = _Ear(self, slot)
        child: Child | None = None
        try:
            child = await self._around.spawn(version.launch, ear)
        except (OSError, EdgeLoopError) as error:
            problem = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            slot.is_refused = isinstance(error, NotHeld | FolderFull)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this function's alone
            problem = f"{type(error).__name__}: {error}"
        else:
            problem = ""
        if child is None:
            slot.error = problem
            self.ended(slot, Ending("exited", 0, f"it could not be started: {problem}"))
            return
        if slot.state is State.ENDED:
            return
        slot.child = child
        if slot.why:
            child.kill()
            return
        configure = Configure(
            settings.name,
            self._around.thing,
            version.launch.code,
            handler=settings.handler,
            site=version.launch.site,
            timeout_s=settings.timeout_s,
            memory_bytes_max=settings.memory_bytes_max,
            publish=settings.publish,
            environment=dict(settings.environment),
            secrets=dict(version.launch.secrets),
            paths=tuple(child.paths),
            network=settings.network,
            group=self._around.group,
            region=self._around.region,
            sockets_told=child.sockets_told,
        )
        slot.unsent.insert(0, slot.codec.write(configure))
        self.flush(slot)
        if slot.is_program:
            self.heard(slot, b"")

    def heard(self, slot: Slot, data: bytes) -> None:
        try:
            frames = slot.codec.feed(data)
        except InputRejected as error:
            self._end(slot, f"it sent what is none of the protocol: {error}")
            return
        finally:
            if text := slot.codec.take_text():
                self._team.printed(slot, "stdout", text)
                self.charge(slot, len(text) / 1024)
        others: list[FromWorker] = []
        for one in frames:
            if isinstance(one, Ready):
                self._is_ready(slot, one)
            elif isinstance(one, StartFailed):
                slot.error = f"{one.error}: {one.message}" if one.message else one.error
                slot.traceback = one.traceback
                problem = {"error": slot.error, "traceback": one.traceback[-4000:]}
                log_event(_log, "function_not_loaded", level=logging.WARNING, function=self._name, **problem)
            else:
                others.append(one)
        if others:
            self._team.received(slot, others)

    def _is_ready(self, slot: Slot, ready: Ready) -> None:
        if slot.state is not State.STARTING:
            return
        slot.state, slot.ready, slot.idle_since = State.READY, ready, self._now()
        self._is_proven, self.refused = True, ""
        if self.candidate is not None and slot.version == self.candidate.number:
            self.version, self.candidate = self.candidate, None
            self.last_error = ""
            for old in tuple(self.slots):
                if old.version != slot.version:
                    self.let_go(old)
        child = slot.child
        log_event(
            _log, "function_ready", function=self._name, version=self.version.digest, pid=child.pid if child else 0
        )
        self._team.is_ready(slot, ready)
        self._team.changed()

    def ended(self, slot: Slot, ending: Ending) -> None:
        if slot.state is State.ENDED:
            return
        was_leaving = slot.state is State.LEAVING or slot.why in {"stopped", "replaced"}
        never_ready = slot.ready is None
        slot.state = State.ENDED
        self.slots.remove(slot)
        ending = _with_last_words(slot, ending)
        if ending.tidied:
            self._tell_tidied(ending.tidied)
        if not was_leaving:
            now = self._now()
            problem = slot.error or slot.why or ending.detail
            wait = self.backoff.ended(now, lived_s=now - slot.started_at, did_something=slot.done > 0)
            self.last_error = problem
            if self.candidate is not None and slot.version == self.candidate.number:
                self._refuse_candidate(problem)
            elif slot.is_refused:
                if self.refused != problem:  # once: it is tried again as long as it is so
                    log_event(_log, "function_refused", level=logging.WARNING, function=self._name, problem=problem)
                self.refused = problem
            else:
                self.restarts += 1
                self.refused = ""
                log_event(
                    _log,
                    "function_worker_ended",
                    level=logging.WARNING,
                    function=self._name,
                    problem=problem,
                    reason=ending.reason,
                    was_ready=not never_ready,
                    again_in_s=round(wait, 3),
                )
        self._team.lost(slot, ending)
        self._team.changed()

    def _tell_tidied(self, what: str) -> None:
        self.tidied = what
        self._around.metrics.counter("function_folders_tidied", function=self._name).value += 1
        log_event(_log, "function_folder_tidied", level=logging.WARNING, function=self._name, problem=what)

    def _refuse_candidate(self, problem: str) -> None:
        self.candidate = None
        self.backoff.reset()
        kept = bool(self._current())
        log_event(
            _log, "function_change_refused", level=logging.WARNING, function=self._name, problem=problem, old_runs=kept
        )

    def _end_late(self, slot: Slot) -> None:
        match slot.state:
            case State.STARTING:
                self._end(slot, f"it was not ready within {START_TIMEOUT_S:g} s")
            case _ if slot.in_flight:
                self._end(slot, "timeout")
            case _:
                self._end(slot, "stopped")

    def _end(self, slot: Slot, why: str) -> None:
        slot.why = slot.why or why
        if slot.child is not None:
            slot.child.kill()


def _with_last_words(slot: Slot, ending: Ending) -> Ending:
    """A program that ends by itself has no other way to say why."""
    words = " | ".join(line.strip() for line in slot.last_words if line.strip())[:LAST_WORDS_CHARACTERS_MAX]
    if not slot.is_program or not words or ending.reason not in {"exited", "signal"}:
        return ending
    return msgspec.structs.replace(ending, detail=f"{ending.detail}; last on its stderr: {words}")


class _Ear:
    """A child's listener: says whose it is."""

    __slots__ = ("_crew", "_slot")

    def __init__(self, crew: Crew, slot: Slot) -> None:
        self._crew, self._slot = crew, slot

    def received(self, data: bytes) -> None:
        if not self._slot.why:
            self._crew.heard(self._slot, data)

    def printed(self, pipe: Pipe, data: bytes) -> None:
        self._crew._team.printed(self._slot, pipe, data)

    def tried(self, what: Refused, detail: str) -> None:
        self._crew._team.tried(self._slot, what, detail)

    def ended(self, ending: Ending) -> None:
        self._crew.ended(self._slot, ending)
