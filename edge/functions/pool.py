"""One function: from its inbox to its workers, and from them to the router.

The straight line: inbox → `Feed` (what is called next, and by whom) → `Calls` (order, retries) → `Crew` (workers) →
`Publishes` → router → `Endings`; then the inbox is told.
Invariants:
- A publish beyond the grants of its worker's version goes nowhere; it is counted, and its handler told.
- All work is done in turns of the loop: one turn takes what came, gives out what can be given, and writes once to each
  worker. There is one timer, for whatever is next.
"""

import asyncio
import contextlib
from functools import partial
from typing import Final

from edge.config_functions import FunctionSettings
from edge.errors import InputRejected
from edge.functions.attempts import Attempts
from edge.functions.calls import Calls, Job, Retry
from edge.functions.child import Pipe
from edge.functions.crew import Crew, Version
from edge.functions.endings import Endings
from edge.functions.feed import SCHEDULED_PER_S, Feed
from edge.functions.figures import Figures, FunctionStatus
from edge.functions.idling import Idling
from edge.functions.inbox import Inbox
from edge.functions.invocation import Invocation
from edge.functions.lines import Lines
from edge.functions.outgoing import Outgoing
from edge.functions.publishes import Publishes
from edge.functions.sandbox import Ending, Refused
from edge.functions.slot import ASKS_PER_S, PUBLISHED_BYTES_PER_S, Slot, State
from edge.functions.surroundings import Surroundings
from edge.functions.turns import Turns
from edge.functions.wire import Begun, Done, Failed, FromWorker, Invoke, Publish, Ready, Reply, Shadow, Tried
from edge.messages import Target

NOTE_S: Final = 1.0
KILL_TIMEOUT_S: Final = 10.0
PUBLISHES_REACHED: Final = f"its share of {PUBLISHED_BYTES_PER_S:.0f} bytes a second"
ASKS_REACHED: Final = f"its share of {ASKS_PER_S:.0f} calls of other functions and shadows a second"
SCHEDULES_REACHED: Final = f"its share of {SCHEDULED_PER_S:.0f} scheduled calls a second"


class Pool:
    """inbox: its own, open. letters: the dead-letter stream, None for none."""

    def __init__(self, version: Version, inbox: Inbox, letters: Target | None, around: Surroundings) -> None:
        settings = version.settings
        self.name, self.inbox = settings.name, inbox
        self._settings, self._around, self._now = settings, around, around.now
        self._turns = Turns(self._move, self._times, self._now)
        self.wake = wake = self._turns.wake
        self._figures = figures = Figures(around.metrics, self.name)
        self._crew = crew = Crew(version, around, self)
        self._calls = calls = Calls(_retry(settings))
        self._endings = Endings(
            self.name, inbox, calls, crew, figures=figures, letters=letters, now=self._now, wake=wake
        )
        route, source = around.route, settings.target
        self._publishes = publishes = Publishes(
            lambda messages, origin: route(source, "", messages, origin), self._endings.settled, self._now, wake
        )
        publishes.source = source
        self._touched: dict[Slot, None] = {}
        self._feed = Feed(
            settings,
            inbox,
            calls,
            crew,
            endings=self._endings,
            figures=figures,
            is_full=lambda: publishes.is_full,
            touched=self._touch,
        )
        self._lines = Lines(self.name, figures)
        self._attempts = Attempts(self.name, around.metrics)
        self._idling = Idling(self.name, around.metrics)
        self._outgoing = Outgoing(self.name, publishes, figures)
        self._left: dict[int, int] = {}
        """The last publish by when a worker of that version had ended."""
        self.is_held = self.is_started = self._stopping = False
        self.problem = ""
        """What is wrong with the files as they are now."""
        self._note_at = self._now() + NOTE_S
        self._quiet, self._deserted = asyncio.Event(), asyncio.Event()
        inbox.when_committed(wake)
        figures.show(self.memory_bytes, lambda: self._crew.restarts)

    # -- from outside

    @property
    def version(self) -> Version:
        """The one that runs, or is being tried."""
        return self._crew.candidate or self._crew.version

    @property
    def versions(self) -> set[int]:
        """The numbers of those of which anything is left: workers, or publishes that are not settled."""
        crew, oldest = self._crew, self._publishes.oldest
        for version in [one for one, last in self._left.items() if oldest is None or last < oldest]:
            del self._left[version]
        return {crew.version.number, self.version.number, *self._left, *(slot.version for slot in crew.slots)}

    @property
    def runnable(self) -> list[Version]:
        """Those whose files are needed."""
        return self._crew.versions

    def letters(self, stream: Target | None) -> None:
        """Where dead letters go from now on."""
        self._endings.burial.stream = stream

    def start(self) -> None:
        """On the running loop."""
        self.is_started = True
        self.inbox.stream.start()
        self._feed.start(self._now())
        self.wake()

    def change(self, version: Version) -> None:
        """New code or settings: they take over when a worker has loaded them."""
        self.is_held = False
        self._crew.change(version)
        self.wake()

    async def stop(self, patience_s: float) -> None:
        """Let what is under way end, for at most so long; then the inbox is closed."""
        self._stopping = True
        self._crew.stop()
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._quiet.wait()
        self._crew.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await self._deserted.wait()
        self._endings.tell_inbox()
        self._turns.end()
        self._feed.end()
        self.inbox.stream.close()

    def abandon(self) -> None:
        """End as a kill would: nothing more is settled."""
        self._turns.end()
        self.inbox.stream.abandon()

    def invoke(self, invocation: Invocation) -> None:
        """Call it once, past the inbox; its end is told to the invocation."""
        self._feed.invoke(invocation)
        self.wake()

    def forget(self, invocation: Invocation) -> None:
        """Nobody waits for it any more; if it was not begun, it never is."""
        self._calls.drop(invocation)

    def reply(self, slot: Slot, reply: Reply) -> None:
        if slot.state is State.ENDED:
            return
        try:
            self._crew.send(slot, reply)
        except InputRejected as error:
            self._crew.send(slot, Reply(reply.id, ok=False, error="too_large", message=str(error)[:200]))
        self._touch(slot)
        self.wake()

    def memory_bytes(self) -> int:
        return sum(slot.child.memory_bytes() for slot in self._crew.slots if slot.child is not None)

    def status(self) -> FunctionStatus:
        crew, figures = self._crew, self._figures
        children = [slot.child for slot in crew.slots if slot.child is not None]
        return FunctionStatus(
            name=self.name,
            state=self._state(),
            pids=tuple(child.pid for child in children),
            version=crew.version.digest,
            calls=figures.calls.value,
            errors=figures.errors.value,
            timeouts=figures.timeouts.value,
            retries=figures.retries.value,
            dead_letters=figures.dead_letters.value,
            restarts=crew.restarts,
            p50_ms=figures.percentile_ms(0.5),
            p99_ms=figures.percentile_ms(0.99),
            memory_bytes=self.memory_bytes(),
            backlog=self.inbox.backlog,
            under_way=sum(len(slot.in_flight) for slot in crew.slots),
            retrying=self._calls.waiting,
            publishes=figures.publishes.value,
            publishes_refused=figures.publishes_refused.value,
            denied=figures.denied.value,
            attempts=self._attempts.last,
            next_start_s=round(max(crew.backoff.until - self._now(), 0.0), 1),
            contained_by=tuple(children[-1].contained_by) if children else (),
            subscribed=self._feed.subscribed,
            tidied=crew.tidied,
            cpu_percent_without_call=round(100 * self._idling.share),
            last_error=self.problem or crew.last_error,
        )

    def _state(self) -> str:
        crew = self._crew
        states = {slot.state for slot in crew.slots}
        if self._stopping:
            return "stopping"
        if self.is_held:
            return "installing"
        if State.READY in states:
            return "ready"
        if crew.refused:
            return "refused"
        if crew.backoff.until > self._now():
            return "backing_off"
        return "starting" if State.STARTING in states or crew.want else "waiting"

    # -- a turn

    def _move(self, now: float) -> None:
        """Take what came, give out what can be given."""
        if self._publishes.again_at and now >= self._publishes.again_at:
            self._publishes.offer_again()
        self._endings.burial.look()
        self._calls.due(now)
        if not self._stopping and self._feed.look_at_schedules(now) and self._crew.slots:
            self._attempts.reached(self._crew.slots[0], "schedules", SCHEDULES_REACHED)
        if now >= self._note_at:
            self._note_at = now + NOTE_S
            self._note()
        if not self._stopping:
            self._feed.give_out(now)
        if not self._stopping and not self.is_held:
            self._feed.hire()
        self._crew.look()
        self._endings.tell_inbox()
        for slot in self._touched:
            self._crew.flush(slot)
        self._touched.clear()
        self._feed.look_at_pauses(now)
        self._look_for_quiet()

    def _touch(self, slot: Slot) -> None:
        """It is written to at the end of this turn."""
        self._touched[slot] = None

    def _look_for_quiet(self) -> None:
        """While it stops: whether all is done."""
        if self._stopping and not self._crew.slots:
            self._deserted.set()
            if not self._publishes.under_way and not self._endings.burial.under_way:
                self._quiet.set()

    def _times(self) -> tuple[float | None, ...]:
        """When there is something to do."""
        return (
            self._note_at,
            self._calls.next_due(),
            None if self._stopping else self._feed.next_due(),
            self._crew.next_look(),
            self._publishes.again_at or None,
            self._endings.burial.again_at or None,
        )

    def _note(self) -> None:
        """Once a second."""
        self.inbox.note()
        if self._calls.waiting and self.inbox.is_crowded:
            self._endings.give_up_waiting()
        self._feed.let_idle_go(self._now())
        self._lines.tell_dropped()
        for slot in self._crew.slots:
            self._look_at_limits(slot)
            self._idling.look(slot, self._now())

    # -- what workers say

    def received(self, slot: Slot, frames: list[FromWorker]) -> None:
        now, denied, tried, published, asked = self._now(), self._figures.denied.value, 0, 0, 0
        for one in frames:
            if isinstance(one, Publish):
                job = slot.in_flight.get(one.call)
                if self._outgoing.publish(one, job, slot.grants, partial(self.reply, slot)):
                    published += slot.cost(one)
            elif isinstance(one, Done | Failed):
                answered = slot.answered(one.id, now)
                if answered is None:
                    self._crew.break_off(slot, f"it answered a call it was not given: {one.id}")
                    break
                self._touch(slot)
                self._answer(slot, one, *answered)
            elif isinstance(one, Shadow | Invoke):
                asked += slot.cost_of_asking()
                answer = partial(self.reply, slot) if one.id else _unanswered
                self._around.ask(slot.grants, one, answer, slot.left_s(one.call, now))
            elif isinstance(one, Begun):
                if not slot.begun(one.id, one.ago_s, now):
                    self._crew.break_off(slot, f"it began a call that it was not given, or had begun: {one.id}")
                    break
            elif isinstance(one, Tried):
                tried += 1
                self._attempts.tried(slot, one.what, one.detail)
            else:
                self._crew.break_off(slot, f"it sent {one.__class__.__name__} out of turn")
                break
        if asides := tried + self._figures.denied.value - denied:
            self._crew.charge(slot, asides)
        if published and self._crew.charge_published(slot, published):
            self._attempts.reached(slot, "publishes", PUBLISHES_REACHED)
        if asked and self._crew.charge_asked(slot, asked):
            self._attempts.reached(slot, "invokes", ASKS_REACHED)
        self._publishes.flush()
        self._crew.look_at_leaving(slot)
        self.wake()

    def _answer(self, slot: Slot, one: Done | Failed, job: Job, took: float) -> None:
        self._figures.calls.value += 1
        self._figures.took(took)
        if isinstance(one, Failed):
            self._endings.raised(job, one, took)
            return
        self._crew.backoff.worked()
        if isinstance(job.handle, Invocation):
            self._publishes.flush()  # who invokes is told what was refused at once
        if not job.refused and job.kind == "request" and job.message is not None and one.result is not None:
            self._outgoing.answer(job, job.message, one.result, slot.grants)
        self._endings.returned(job, one.result, took)

    def lost(self, slot: Slot, ending: Ending) -> None:
        begun, others = slot.split()
        timed_out = slot.why == "timeout"
        limit = f"it did not answer within {self._settings.timeout_s:g} s, and was ended"
        error = f"TimeoutError: {limit}" if timed_out else f"WorkerEnded: {slot.why or ending.detail}"
        last = limit if timed_out else self._crew.last_error
        if reached := ", ".join(self._look_at_limits(slot)):
            error, last = f"{error}; it had reached {reached}", f"{last}; it had reached {reached}"
        self._crew.last_error = last
        if slot.why.startswith(("stopped", "replaced")):
            self._endings.handed_back([*begun, *others], error)
        else:
            self._endings.lost(begun, others, error, timed_out=timed_out)
        self._left[slot.version] = self._publishes.newest
        self._lines.ended(slot)
        self._attempts.ended(slot)
        self._idling.ended(slot)
        self._touched.pop(slot, None)

    def _look_at_limits(self, slot: Slot) -> list[str]:
        """Those it came up against, in words."""
        reached = slot.child.reached if slot.child is not None else {}
        for limit, words in reached.items():
            self._attempts.reached(slot, limit, words)
        return list(reached.values())

    def changed(self) -> None:
        self.wake()

    def is_ready(self, slot: Slot, ready: Ready) -> None:
        self._settings = settings = self._crew.version.settings
        self._calls.retry = _retry(settings)
        self._feed.learn(settings, ready, self._now())

    def printed(self, slot: Slot, pipe: Pipe, data: bytes) -> None:
        self._lines.printed(slot, pipe, data, self._now())

    def tried(self, slot: Slot, what: Refused, detail: str) -> None:
        self._attempts.tried(slot, what, detail)


def _unanswered(reply: Reply) -> None:
    """Nobody waits for it."""


def _retry(settings: FunctionSettings) -> Retry:
    return Retry(settings.interval_s, settings.max_attempts, settings.backoff_rate, settings.max_delay_s)
