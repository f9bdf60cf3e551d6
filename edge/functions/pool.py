"""One function: from its inbox to its workers, and from them to the router.

The straight line: inbox → `Calls` (order, retries) → `Crew` (workers) → `Publishes` → router; then the inbox is told.
Invariants:
- A message is settled in the inbox when its handler returned and all it published was settled by the router, or when
  its dead letter was; never before. So a kill at any time repeats calls, and loses none.
- A publish beyond the grants of its worker's version goes nowhere; it is counted, and its handler told.
- A call of which a publish went nowhere without its handler being told has failed, as if the handler had raised.
- All work is done in turns of the loop: one turn takes what came, gives out what can be given, and writes once to each
  worker. There is one timer, for whatever is next.
"""

import asyncio
import contextlib
import logging
import os
from functools import partial
from hashlib import blake2b
from typing import Final

from edge.config_functions import FunctionSettings
from edge.errors import InputRejected
from edge.functions.attempts import Attempts
from edge.functions.burial import Burial
from edge.functions.calls import ONCE, Calls, Job, Retry
from edge.functions.child import Pipe
from edge.functions.crew import Crew, Version
from edge.functions.figures import Figures, FunctionStatus
from edge.functions.grants import Handled
from edge.functions.inbox import Inbox
from edge.functions.invocation import Invocation
from edge.functions.lines import Lines, tell_failure
from edge.functions.outgoing import Outgoing
from edge.functions.publishes import Publishes
from edge.functions.sandbox import Ending, Refused
from edge.functions.schedules import Schedules
from edge.functions.slot import Slot, State
from edge.functions.surroundings import Surroundings
from edge.functions.wire import Call, Done, Failed, FromWorker, Invoke, Publish, Ready, Reply, Shadow, Tried
from edge.logs import log_event
from edge.messages import Message, Target

TAKE: Final = 64
LOOK_AHEAD: Final = 256  # messages behind busy topics, among which others are looked for; more when a topic waits
NOTE_S: Final = 1.0
KILL_TIMEOUT_S: Final = 10.0

_log = logging.getLogger(__name__)


class Pool:
    """inbox: its own, open. letters: the dead-letter stream, None for none."""

    def __init__(self, version: Version, inbox: Inbox, letters: Target | None, around: Surroundings) -> None:
        settings = version.settings
        self.name, self.inbox = settings.name, inbox
        self._settings, self._around, self._now = settings, around, around.now
        self._figures = figures = Figures(around.metrics, self.name)
        self._crew = Crew(version, around, self)
        self._calls = Calls(_retry(settings))
        route, source = around.route, settings.target
        self._publishes = Publishes(
            lambda messages, origin: route(source, "", messages, origin), self._settled, self._now, self.wake
        )
        self._burial = Burial(self.name, inbox, letters, figures, settled=self._settled, now=self._now, moved=self.wake)
        self._schedules = Schedules()
        self._lines = Lines(self.name, figures)
        self._attempts = Attempts(self.name, around.metrics)
        self._outgoing = Outgoing(self.name, self._publishes, figures)
        self._handled = Handled(None)
        self._ended: list[int] = []
        self._call_ids = 0
        self._life = os.urandom(16)
        """Names what is in no inbox: unlike the inbox's own name, not that of another start."""
        self._touched: dict[Slot, None] = {}
        self._paused: set[Slot] = set()
        self._left: dict[int, int] = {}
        """The last publish by when a worker of that version had ended."""
        self.is_held = self.is_started = self._turn_due = self._stopped = self._stopping = self._learned = False
        self.problem = ""
        """What is wrong with the files as they are now."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._note_at = self._now() + NOTE_S
        self._quiet, self._deserted = asyncio.Event(), asyncio.Event()
        inbox.when_committed(self.wake)
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

    def letters(self, stream: Target | None) -> None:
        """Where dead letters go from now on."""
        self._burial.stream = stream

    def start(self) -> None:
        """On the running loop."""
        self.is_started = True
        self.inbox.stream.start()
        self._schedules.configure(self._settings.every_s, self._now())
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
        self._settle_ended()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self.inbox.stream.close()

    def abandon(self) -> None:
        """End as a kill would: nothing more is settled."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self.inbox.stream.abandon()

    def invoke(self, invocation: Invocation) -> None:
        """Call it once, past the inbox; its end is told to the invocation."""
        self._call_ids += 1
        message = Message(invocation.topic, invocation.payload)
        job = Job(f"\0invoke {self._call_ids}", message, kind="invoke")
        job.retry, job.handle, job.context = ONCE, invocation, invocation.context
        self._calls.add(job)
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
        self._touched[slot] = None
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
            subscribed=tuple(self._handled.filters or self._settings.subscribe),
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
        if crew.backoff.until > self._now():
            return "backing_off"
        return "starting" if State.STARTING in states or crew.want else "waiting"

    # -- turns

    def wake(self) -> None:
        """Take a turn soon."""
        if not self._turn_due and not self._stopped:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._stopped:
            return
        now = self._now()
        try:
            self._move(now)
        finally:
            self._set_timer(now)  # whatever goes wrong in one turn, there is another

    def _move(self, now: float) -> None:
        """Take what came, give out what can be given."""
        if self._publishes.again_at and now >= self._publishes.again_at:
            self._publishes.offer_again()
        self._burial.look()
        self._calls.due(now)
        self._look_at_schedules(now)
        if now >= self._note_at:
            self._note_at = now + NOTE_S
            self._note()
        if not self._stopping:
            self._give_out(now)
        self._hire()
        self._crew.look()
        self._settle_ended()
        for slot in self._touched:
            self._crew.flush(slot)
        self._touched.clear()
        self._look_at_pauses()
        self._look_for_quiet()

    def _look_for_quiet(self) -> None:
        """While it stops: whether all is done."""
        if self._stopping and not self._crew.slots:
            self._deserted.set()
            if not self._publishes.under_way and not self._burial.under_way:
                self._quiet.set()

    def _set_timer(self, now: float) -> None:
        times = [
            self._note_at,
            self._calls.next_due(),
            None if self._stopping else self._schedules.next_due(),
            self._crew.next_look(),
            self._publishes.again_at or None,
            self._burial.again_at or None,
        ]
        when = max(min([time for time in times if time is not None]), now + 0.001)
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_later(when - now, self._timed)

    def _timed(self) -> None:
        self._timer = None
        if not self._turn_due:
            self._turn_due = True
            self._turn()

    def _note(self) -> None:
        """Once a second."""
        self.inbox.note()
        if self._calls.waiting and self.inbox.is_crowded:
            for job in self._calls.give_up_waiting():
                job.error = f"{job.error} (given up before its time: the inbox is crowded)"
                self._bury(job)
        if self._settings.start == "on_demand" and self._learned and not self._calls.ready:
            late = self._now() - self._settings.idle_timeout_s
            for slot in tuple(self._crew.slots):
                if slot.state is State.READY and not slot.in_flight and slot.idle_since <= late:
                    self._crew.let_go(slot)
        self._lines.tell_dropped()
        for slot in self._crew.slots:
            self._look_at_limits(slot)

    # -- giving out

    def _hire(self) -> None:
        """How many workers there should be."""
        settings = self._settings
        crew = self._crew
        if self._stopping or self.is_held:
            return
        if settings.start == "warm" or not self._learned:
            crew.want = settings.workers if settings.start == "warm" else 1
            return
        there = sum(1 for slot in crew.slots if slot.state in {State.STARTING, State.READY})
        if self._calls.ready or self.inbox.has_more:
            busy = all(slot.in_flight for slot in crew.slots)
            crew.want = min(there + 1, settings.workers) if busy else max(there, 1)
        else:
            crew.want = min(crew.want, there)

    def _give_out(self, now: float) -> None:
        calls, crew = self._calls, self._crew
        while not self._publishes.is_full:
            job = calls.peek()
            if job is None:
                enough = calls.held >= LOOK_AHEAD and not calls.may_wait
                if enough or not self._free(None) or not self._take():
                    return
                continue
            slot = self._free(job)
            if slot is None:
                return
            calls.take()
            self._give(slot, job, now)
            crew.look_at_leaving(slot)

    def _free(self, job: Job | None) -> Slot | None:
        """The worker with the most room for it."""
        alone, only = job is not None and job.alone, self._settings.workers == 1
        best, most = None, 0
        for slot in self._crew.slots:
            if (room := slot.room(alone=alone, only=only)) > most:
                best, most = slot, room
        return best

    def _take(self) -> bool:
        """More out of the inbox. False: there is none now."""
        try:
            found = self.inbox.take(TAKE)
        except OSError as error:
            problem = error.strerror or str(error)
            log_event(_log, "function_inbox_unreadable", level=logging.WARNING, function=self.name, problem=problem)
            return False
        add = self._calls.add
        for message, attempt in found:
            properties = message.properties
            asked = properties is not None and properties.response_topic is not None
            add(Job(message.topic, message, message.receipt, kind="request" if asked else "message", attempt=attempt))
        return bool(found)

    def _give(self, slot: Slot, job: Job, now: float) -> None:
        message = job.message
        if message is None:
            message = self._read_again(job)
            if message is None:
                return
        if job.number and message.topic not in self._handled:
            self._figures.unhandled.value += 1
            self._calls.returned(job)
            self._ended.append(job.number)
            return
        self._call_ids += 1
        id_ = self._call_ids
        if not job.request:
            job.request = _request(self.inbox.identity, job.number) if job.number else _request(self._life, id_)
        reading = message.reading
        if job.number and self.inbox.is_from_nowhere(message):
            reading = None
        call = Call(
            id_,
            message.topic,
            message.payload,
            job.kind,
            self._settings.timeout_s,
            job.attempt,
            message.time_ms,
            reading.thing if reading is not None else "",
            reading,
            message.properties,
            job.schedule,
            job.context,
            job.request,
        )
        try:
            self._crew.send(slot, call)
        except InputRejected as error:
            self._give_up(job, str(error))
            return
        job.refused = ""
        slot.give(id_, job, now)
        self._touched[slot] = None

    def _read_again(self, job: Job) -> Message | None:
        try:
            job.message = self.inbox.again(job.number)
        except OSError as error:
            job.error = f"its record cannot be read: {error.strerror}"
            self._failed(job)
            return None
        if job.message is None:  # shed meanwhile, and counted where it was
            self._calls.returned(job)
            self._ended.append(job.number)
        return job.message

    # -- what workers say

    def received(self, slot: Slot, frames: list[FromWorker]) -> None:
        now, denied, tried = self._now(), self._figures.denied.value, 0
        for one in frames:
            if isinstance(one, Publish):
                self._outgoing.publish(one, slot.in_flight.get(one.call), slot.grants, partial(self.reply, slot))
            elif isinstance(one, Done | Failed):
                answered = slot.answered(one.id, now)
                if answered is None:
                    self._crew.break_off(slot, f"it answered a call it was not given: {one.id}")
                    break
                self._touched[slot] = None
                self._answer(slot, one, *answered)
            elif isinstance(one, Shadow | Invoke):
                self._around.ask(slot.grants, one, partial(self.reply, slot))
            elif isinstance(one, Tried):
                tried += 1
                self._attempts.tried(slot, one.what, one.detail)
            else:
                self._crew.break_off(slot, f"it sent {one.__class__.__name__} out of turn")
                break
        if asides := tried + self._figures.denied.value - denied:
            self._crew.charge(slot, asides)
        self._publishes.flush()
        self._crew.look_at_leaving(slot)
        self.wake()

    def _answer(self, slot: Slot, one: Done | Failed, job: Job, took: float) -> None:
        figures = self._figures
        figures.calls.value += 1
        figures.took(took)
        if isinstance(one, Done):
            self._crew.backoff.worked()
            if isinstance(job.handle, Invocation):
                self._publishes.flush()  # who invokes is told what was refused at once
            if job.refused:
                self._count_failure(job, job.refused, "", took)
                self._failed(job)
                return
            if job.kind == "request" and job.message is not None and one.result is not None:
                self._outgoing.answer(job, job.message, one.result, slot.grants)
            if isinstance(job.handle, Invocation):
                job.handle.done(one.result, took)
            job.has_returned = True
            job.alone = False
            self._calls.returned(job)
            if not job.open:
                self._settled(job)
            return
        if one.error == "TimeoutError":
            figures.timeouts.value += 1
        self._count_failure(job, f"{one.error}: {one.message}" if one.message else one.error, one.traceback, took)
        self._failed(job)

    def _count_failure(self, job: Job, error: str, traceback: str, took: float) -> None:
        self._figures.errors.value += 1
        job.error = self._crew.last_error = error
        if isinstance(job.handle, Invocation):
            name, _, message = error.partition(": ")
            job.handle.failed(name, message, traceback, took)
        if job.attempt == 1 or job.attempt >= (job.retry or self._calls.retry).max_attempts:
            tell_failure(self.name, job, traceback)

    def _failed(self, job: Job) -> None:
        if self._calls.failed(job, self._now()):
            self._will_retry(job)
        else:
            self._bury(job)

    def _will_retry(self, job: Job) -> None:
        self._figures.retries.value += 1
        if job.number:
            self.inbox.failed(job.number, job.attempt)

    def lost(self, slot: Slot, ending: Ending) -> None:
        figures = self._figures
        begun, others = slot.split()
        timed_out = slot.why == "timeout"
        limit = f"it did not answer within {self._settings.timeout_s:g} s, and was ended"
        error = f"TimeoutError: {limit}" if timed_out else f"WorkerEnded: {slot.why or ending.detail}"
        last = limit if timed_out else self._crew.last_error
        if reached := ", ".join(self._look_at_limits(slot)):
            error, last = f"{error}; it had reached {reached}", f"{last}; it had reached {reached}"
        self._crew.last_error = last
        for job in begun:
            job.error = error
        if begun and not slot.why.startswith(("stopped", "replaced")):
            figures.errors.value += 1
            figures.timeouts.value += timed_out
            if len(begun) == 1:
                figures.calls.value += 1
                tell_failure(self.name, begun[0])
                if isinstance(begun[0].handle, Invocation):
                    begun[0].handle.failed(error.partition(":")[0], error.partition(": ")[2], "", 0.0)
            again, given_up = self._calls.ended(begun, others, self._now())
            for job in again:
                self._will_retry(job)
            for job in given_up:
                self._bury(job)
        else:
            self._calls.ended((), [*begun, *others], self._now())
        self._left[slot.version] = self._publishes.newest
        self._lines.ended(slot)
        self._attempts.ended(slot)
        self._paused.discard(slot)
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
        self._learned = True
        self._settings = self._crew.version.settings
        self._calls.retry = _retry(self._settings)
        self._handled = Handled(None if ready.takes_all else ready.filters)
        self._schedules.configure(self._settings.every_s, self._now())
        self._schedules.learn([(one.id, one.interval_s) for one in ready.schedules], self._now())

    # -- the end of a job

    def _settled(self, job: Job) -> None:
        """All its publishes are. Where one was refused the call failed, although its handler returned."""
        if not job.has_returned:
            return
        if job.refused and not job.is_buried:
            self._undo(job)
        elif job.number:
            self._ended.append(job.number)
        self.wake()

    def _undo(self, job: Job) -> None:
        self._count_failure(job, job.refused, "", 0.0)
        if self._calls.undone(job, self._now()):
            job.has_returned = False
            self._will_retry(job)
        else:
            self._bury(job)

    def _bury(self, job: Job) -> None:
        """It failed to the last."""
        job.has_returned = job.is_buried = True
        if not job.number:
            return
        self._burial.bury(job)
        self.wake()

    def _give_up(self, job: Job, error: str) -> None:
        job.error = error
        job.retry = ONCE
        self._calls.returned(job)
        self._bury(job)

    def _settle_ended(self) -> None:
        if self._ended:
            ended, self._ended = self._ended, []
            self.inbox.done(ended)
        if self._burial.given_up:
            given_up, self._burial.given_up = self._burial.given_up, []
            self.inbox.give_up(given_up)

    # -- schedules, pauses, lines

    def _look_at_schedules(self, now: float) -> None:
        if self._stopping:
            return
        for id_ in self._schedules.due(now):
            lane = f"\0schedule {id_}"
            if self._calls.has_lane(lane):
                self._figures.schedules_skipped.value += 1
                continue
            job = Job(lane, Message("", b""), kind="schedule")
            job.retry, job.schedule = ONCE, id_
            self._calls.add(job)

    def _look_at_pauses(self) -> None:
        """Who publishes faster than it is taken is not read from."""
        full = self._publishes.is_full
        if full:
            for slot in self._crew.slots:
                if slot.child is not None and slot not in self._paused:
                    slot.child.pause()
                    self._paused.add(slot)
        elif self._paused:
            for slot in self._paused:
                if slot.child is not None:
                    slot.child.resume()
            self._paused.clear()

    def printed(self, slot: Slot, pipe: Pipe, data: bytes) -> None:
        self._lines.printed(slot, pipe, data, self._now())

    def tried(self, slot: Slot, what: Refused, detail: str) -> None:
        self._attempts.tried(slot, what, detail)


def _request(whose: bytes, number: int) -> str:
    digits = blake2b(b"%d" % number, digest_size=16, key=whose).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _retry(settings: FunctionSettings) -> Retry:
    return Retry(settings.interval_s, settings.max_attempts, settings.backoff_rate, settings.max_delay_s)
