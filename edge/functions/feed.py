"""What the workers of one function are fed: from its inbox and its schedules, a call each, to who has room for it.

Invariants: no more is taken out of the inbox than may soon be called, and nothing while what the function publishes
finds no room; then nobody is read from either, so that who publishes without end waits.
"""

import logging
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from edge.config_functions import FunctionSettings
from edge.errors import InputRejected
from edge.functions.allowance import Allowance
from edge.functions.calls import ONCE, Calls, Job
from edge.functions.crew import Crew
from edge.functions.endings import Endings
from edge.functions.figures import Figures
from edge.functions.grants import Handled
from edge.functions.inbox import Inbox
from edge.functions.invocation import Invocation
from edge.functions.schedules import Schedules
from edge.functions.slot import Slot, State
from edge.functions.wire import HANDLERS_MAX, Call, Ready
from edge.logs import log_event
from edge.messages import Message

TAKE: Final = 64
INVOCATIONS_MAX, INVOCATIONS_BYTES_MAX = 64, 4 * 1024 * 1024
SCHEDULED_PER_S: Final = 100.0  # of one function, all its schedules together; beyond that they are skipped
SCHEDULED_BURST: Final = float(HANDLERS_MAX)  # all may be due at once
SCHEDULES_REST_S: Final = 0.1
LOOK_AHEAD: Final = 256  # messages behind busy topics, among which others are looked for; more when a topic waits

_log = logging.getLogger(__name__)


class Feed:
    """is_full: what the function publishes finds no room. touched: called with who is to be written to in this turn."""

    def __init__(
        self,
        settings: FunctionSettings,
        inbox: Inbox,
        calls: Calls,
        crew: Crew,
        *,
        endings: Endings,
        figures: Figures,
        is_full: Callable[[], bool],
        touched: Callable[[Slot], None],
    ) -> None:
        self._settings = settings
        self._inbox, self._calls, self._crew, self._endings, self._figures = inbox, calls, crew, endings, figures
        self._is_full, self._touched = is_full, touched
        self._schedules = Schedules()
        self._scheduled = Allowance(0.0, per_s=SCHEDULED_PER_S, burst=SCHEDULED_BURST)
        self._schedules_rest_until = 0.0
        self._skipped_first = 0
        self._handled = Handled(None)
        self._call_ids = 0
        self._life = os.urandom(16)
        """Names what is in no inbox: unlike the inbox's own name, not that of another start."""
        self._invoked: list[Invocation] = []
        self._is_unreadable = False
        self.is_learned = False
        """Whether a worker has said what it listens to."""

    @property
    def subscribed(self) -> tuple[str, ...]:
        return tuple(self._handled.filters or self._settings.subscribe)

    def start(self, now: float) -> None:
        self._schedules.configure(self._settings.every_s, now)

    def learn(self, settings: FunctionSettings, ready: Ready, now: float) -> None:
        """What the version that runs from now on is like."""
        self.is_learned = True
        self._settings = settings
        self._handled = Handled(None if ready.takes_all else ready.filters)
        self._schedules.configure(settings.every_s, now)
        self._schedules.learn([(one.id, one.interval_s) for one in ready.schedules], now)

    def next_due(self) -> float | None:
        """When a schedule is."""
        due = self._schedules.next_due()
        return None if due is None else max(due, self._schedules_rest_until)

    def look_at_schedules(self, now: float) -> bool:
        """Whether more were due than are allowed. Those that are skipped for it come first the next time."""
        if now < self._schedules_rest_until:
            return False
        first, beyond = self._skipped_first, False
        for id_ in sorted(self._schedules.due(now), key=lambda id_: (id_ < first, id_)):
            lane = f"\0schedule {id_}"
            if not beyond and self._scheduled.spend(0, now):
                self._skipped_first, beyond = id_, True
            if beyond or self._calls.has_lane(lane):
                self._figures.schedules_skipped.value += 1
                continue
            self._scheduled.spend(1, now)
            job = Job(lane, Message("", b""), kind="schedule")
            job.retry, job.schedule = ONCE, id_
            self._calls.add(job)
        if beyond:
            self._schedules_rest_until = now + SCHEDULES_REST_S
        return beyond

    def invoke(self, invocation: Invocation) -> None:
        """Past the inbox. Beyond the bounds it is told so at once: `congested`."""
        self._invoked = invoked = [one for one in self._invoked if not one.is_over]
        size = len(invocation.payload) + sum(len(one.payload) for one in invoked)
        if len(invoked) >= INVOCATIONS_MAX or size > INVOCATIONS_BYTES_MAX:
            invocation.failed("congested", f"{len(invoked)} invocations of it are under way", "", 0.0)
            return
        invoked.append(invocation)
        self._call_ids += 1
        message = Message(invocation.topic, invocation.payload)
        job = Job(f"\0invoke {self._call_ids}", message, kind="invoke")
        job.retry, job.handle, job.context = ONCE, invocation, invocation.context
        self._calls.add(job)

    def end(self) -> None:
        """There are no more calls: whoever invoked and waits is told."""
        for invocation in self._invoked:
            invocation.failed("NotCalled", "the function was stopped", "", 0.0)

    # -- who works

    def hire(self) -> None:
        """Say how many workers there should be."""
        settings, crew = self._settings, self._crew
        if settings.start == "warm" or not self.is_learned:
            crew.want = settings.workers if settings.start == "warm" else 1
            return
        there = sum(1 for slot in crew.slots if slot.state in {State.STARTING, State.READY})
        if self._calls.ready or self._inbox.has_more:
            busy = all(slot.in_flight for slot in crew.slots)
            crew.want = min(there + 1, settings.workers) if busy else max(there, 1)
        else:
            crew.want = min(crew.want, there)

    def let_idle_go(self, now: float) -> None:
        """Who runs on demand, and had nothing to do for long."""
        if self._settings.start != "on_demand" or not self.is_learned or self._calls.ready:
            return
        late = now - self._settings.idle_timeout_s
        for slot in tuple(self._crew.slots):
            if slot.state is State.READY and not slot.in_flight and slot.idle_since <= late:
                self._crew.let_go(slot)

    def look_at_pauses(self, now: float) -> None:
        """Who publishes faster than it is taken is not read from."""
        is_full = self._is_full()
        for slot in self._crew.slots:
            if is_full:
                slot.pause(now)
            else:
                slot.resume(now)

    # -- giving out

    def give_out(self, now: float) -> None:
        """As much as there is room for."""
        calls, crew = self._calls, self._crew
        while not self._is_full():
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
            found = self._inbox.take(TAKE)
        except OSError as error:
            if not self._is_unreadable:
                self._is_unreadable = True
                problem, name = error.strerror or str(error), self._settings.name
                log_event(_log, "function_inbox_unreadable", level=logging.WARNING, function=name, problem=problem)
            return False
        self._is_unreadable = False
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
            self._endings.passed_over(job)
            return
        self._call_ids += 1
        id_ = self._call_ids
        if not job.request:
            job.request = _request(self._inbox.identity, job.number) if job.number else _request(self._life, id_)
        reading = message.reading
        if job.number and self._inbox.is_from_nowhere(message):
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
            self._endings.give_up(job, error)
            return
        job.refused = ""
        slot.give(id_, job, now)
        self._touched(slot)

    def _read_again(self, job: Job) -> Message | None:
        try:
            job.message = self._inbox.again(job.number)
        except OSError as error:
            job.error = f"its record cannot be read: {error.strerror}"
            self._endings.failed(job)
            return None
        if job.message is None:  # shed meanwhile, and counted where it was
            self._endings.passed_over(job)
        return job.message


def _request(whose: bytes, number: int) -> str:
    digits = blake2b(b"%d" % number, digest_size=16, key=whose).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
