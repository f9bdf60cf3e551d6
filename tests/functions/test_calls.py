"""The order of calls, against a model: a list a topic."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.functions.calls import Calls, Job, Retry
from edge.messages import Message

RETRY = Retry(interval_s=1.0, max_attempts=3, backoff_rate=2.0, max_delay_s=3.0)


class Model(RuleBasedStateMachine):
    """waiting: what is in each topic, in order, the first of it perhaps under way."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls(RETRY)
        self.now = 0.0
        self.numbers = 0
        self.waiting: dict[str, list[int]] = {}
        self.under_way: list[Job] = []
        self.returned: list[Job] = []
        self.until: dict[str, float] = {}
        self.attempts: dict[int, int] = {}
        self.ended: list[int] = []

    @rule(topic=st.sampled_from("abc"), size=st.sampled_from([0, 600_000]))
    def add(self, topic: str, size: int) -> None:
        self.numbers += 1
        self.calls.add(Job(topic, Message(topic, bytes(size)), self.numbers))
        self.waiting.setdefault(topic, []).append(self.numbers)
        self.attempts[self.numbers] = 1

    @rule()
    def take(self) -> None:
        job = self.calls.take()
        free = [
            topic
            for topic, numbers in self.waiting.items()
            if numbers and topic not in self.until and topic not in self._busy()
        ]
        if job is None:
            assert not free
            return
        assert job.lane in free
        assert job.number == self.waiting[job.lane][0]
        assert job.attempt == self.attempts[job.number]
        self.under_way.append(job)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def return_one(self, data: Any) -> None:
        job = self._pick(data)
        self.calls.returned(job)
        self._end(job)
        self.returned.append(job)

    @precondition(lambda self: self.returned)
    @rule(data=st.data())
    def undo_one(self, data: Any) -> None:
        """What it published was refused, after it returned."""
        job: Job = data.draw(st.sampled_from(self.returned))
        self.returned.remove(job)
        if self.calls.undone(job, self.now):
            self.ended.remove(job.number)
            self.waiting[job.lane] = sorted([*self.waiting[job.lane], job.number])
            self.until[job.lane] = self.now + RETRY.delay_s(self.attempts[job.number])
            self.attempts[job.number] += 1
            assert job.attempt == self.attempts[job.number]
        else:
            assert self.attempts[job.number] == RETRY.max_attempts

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def fail_one(self, data: Any) -> None:
        job = self._pick(data)
        self._failed(job, self.calls.failed(job, self.now))

    @precondition(lambda self: self.under_way)
    @rule(begun=st.integers(0, 3))
    def end_worker(self, begun: int) -> None:
        """One worker had all that is under way, and had begun so many of it."""
        first, rest = self.under_way[:begun], self.under_way[begun:]
        self.under_way = []
        again, given_up = self.calls.ended(first, rest, self.now)
        if len(first) == 1:
            assert [*again, *given_up] == first
            self._failed(first[0], bool(again))
        else:
            assert not again
            assert not given_up
            assert all(job.alone for job in first)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.calls.due(self.now)
        self.until = {topic: when for topic, when in self.until.items() if when > self.now}

    @rule()
    def crowd(self) -> None:
        given_up = self.calls.give_up_waiting()
        assert {job.lane for job in given_up} == set(self.until)
        for job in given_up:
            assert job.number == min(set(self.waiting[job.lane]) - {one.number for one in self.under_way})
            self._end(job)
        self.until.clear()

    @invariant()
    def counts_agree(self) -> None:
        held = sum(len(numbers) for numbers in self.waiting.values()) - len(self.under_way)
        assert self.calls.held == held
        assert self.calls.waiting == len(self.until)
        due = self.calls.next_due()
        assert not self.until or (due is not None and due <= min(self.until.values()))

    @invariant()
    def every_job_ends_at_most_once(self) -> None:
        assert len(self.ended) == len(set(self.ended))
        open_ = [number for numbers in self.waiting.values() for number in numbers]
        assert sorted([*self.ended, *open_]) == list(range(1, self.numbers + 1))

    def teardown(self) -> None:
        """Whatever happened, all ends in order."""
        self.calls.due(1e9)
        self.until.clear()
        for job in self.under_way:
            self.calls.returned(job)
            self._end(job)
        while (last := self.calls.take()) is not None:
            assert last.number == self.waiting[last.lane][0]
            self.calls.returned(last)
            self._end(last)
        assert len(self.ended) == self.numbers
        assert not self.calls.held
        assert not self.calls._held_bytes
        assert not self.calls._lanes

    def _busy(self) -> set[str]:
        return {job.lane for job in self.under_way}

    def _pick(self, data: Any) -> Job:
        job: Job = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(job)
        return job

    def _failed(self, job: Job, again: bool) -> None:
        assert again is (self.attempts[job.number] < RETRY.max_attempts)
        if again:
            self.until[job.lane] = self.now + RETRY.delay_s(self.attempts[job.number])
            self.attempts[job.number] += 1
            assert job.attempt == self.attempts[job.number]
        else:
            self._end(job)

    def _end(self, job: Job) -> None:
        self.waiting[job.lane].remove(job.number)
        self.ended.append(job.number)


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


def test_retries_come_after_the_interval_times_the_backoff_rate_up_to_the_longest() -> None:
    assert [RETRY.delay_s(attempt) for attempt in (1, 2, 3, 4, 10_000)] == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_of_many_messages_only_the_numbers_stay_in_memory() -> None:
    calls = Calls(RETRY)
    jobs = [Job("t", Message("t", bytes(100_000)), number) for number in range(1, 31)]
    for job in jobs:
        calls.add(job)
    kept = [job.number for job in jobs if job.message is not None]
    assert kept == list(range(1, 11))
