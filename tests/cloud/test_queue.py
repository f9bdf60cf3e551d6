from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.cloud.queue import Queue
from edge.messages import Message, Outcome, Properties
from edge.metrics import Counter
from tests.cloud.worlds import Ledger

MESSAGES_MAX, BYTES_MAX = 12, 2000


def make(messages_max: int = 100, bytes_max: int = 100_000) -> tuple[Queue, Counter, Counter]:
    dropped, congested = Counter(), Counter()
    return Queue(messages_max, bytes_max, dropped, congested), dropped, congested


def messages(*receipts: int, qos: int = 1, size: int = 1) -> list[Message]:
    return [Message("t", b"x" * size, qos=qos, receipt=receipt) for receipt in receipts]


def test_from_the_first_that_does_not_fit_on_all_are_turned_away() -> None:
    queue, _, congested = make(bytes_max=400)
    ledger = Ledger()
    queue.put([*messages(1), *messages(2, size=1000), *messages(3)], ledger)
    assert queue.messages == 1
    assert ledger.receipts(Outcome.CONGESTED) == [2, 3]
    assert congested.value == 2


def test_a_queue_of_no_room_takes_nothing() -> None:
    queue, dropped, _ = make(messages_max=0)
    ledger = Ledger()
    queue.put([*messages(1), *messages(0, qos=0)], ledger)
    assert not queue
    assert (ledger.receipts(Outcome.CONGESTED), dropped.value) == ([1], 1)


def test_a_head_is_of_one_origin() -> None:
    queue, _, _ = make()
    one, other = Ledger(), Ledger()
    queue.put(messages(1, 2), one)
    queue.put(messages(3), other)
    assert queue.head(10) == (messages(1, 2), one)
    queue.advance(1)
    assert queue.head(10) == (messages(2), one)
    queue.advance(1)
    assert queue.head(10) == (messages(3), other)


def test_what_is_put_back_goes_first_even_when_the_queue_is_full() -> None:
    queue, _, _ = make(messages_max=2)
    ledger = Ledger()
    queue.put(messages(1, 2), ledger)
    head, _ = queue.head(2)
    queue.advance(2)
    queue.put(messages(3, 4), ledger)
    queue.put_back([(head, ledger)])
    order = []
    while queue:
        head, _ = queue.head(1)
        order += [message.receipt for message in head]
        queue.advance(1)
    assert order == [1, 2, 3, 4]
    assert queue.bytes == 0


def test_what_is_taken_out_leaves_the_rest_in_order_and_counted() -> None:
    queue, _, _ = make()
    one, other = Ledger(), Ledger()
    queue.put(messages(1, 2, 3), one)
    queue.put(messages(4), other)
    queue.put(messages(5, 6), one)
    queue.advance(1)
    assert queue.take_out(lambda message, _: message.receipt in {1, 3, 4, 6}) == [
        (messages(3), one),
        (messages(4), other),
        (messages(6), one),
    ]
    assert queue.messages == 2
    left = []
    while queue:
        left.append(queue.head(9))
        queue.advance(len(left[-1][0]))
    assert left == [(messages(2), one), (messages(5), one)]
    assert queue.bytes == 0


def expiring(receipt: int, expiry_s: int, qos: int = 1) -> Message:
    return Message("t", b"x", qos=qos, receipt=receipt, properties=Properties(content_type="c", expiry_s=expiry_s))


def test_what_waits_has_its_expiry_lowered_and_is_dropped_and_counted_at_its_end() -> None:
    now, expired, ledger = 100.0, Counter(), Ledger()
    queue = Queue(100, 100_000, Counter(), Counter(), expired=expired, clock=lambda: now)
    queue.put([expiring(1, 10), expiring(2, 60), *messages(3), expiring(0, 5, qos=0)], ledger)
    now = 109.9
    queue.put([expiring(4, 1)], ledger)
    queue.expire()
    assert (expired.value, ledger.outcomes) == (1, {})
    assert queue.head(9) == ([expiring(1, 1), expiring(2, 51), *messages(3)], ledger)
    now = 110.0
    queue.expire()
    assert ledger.receipts(Outcome.REFUSED) == [1]
    assert queue.head(9) == ([expiring(2, 50), *messages(3)], ledger)
    queue.advance(1)
    assert queue.head(9) == (messages(3), ledger)
    now = 1e9
    queue.expire()
    assert ledger.receipts(Outcome.REFUSED) == [1, 4]
    assert (expired.value, queue.messages) == (3, 1)
    queue.advance(1)
    assert queue.bytes == 0


class Told(Ledger):
    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Message] = []

    def expired(self, messages: Sequence[Message]) -> None:
        self.ended += messages


def test_an_origin_that_tells_what_expired_from_what_is_refused_is_told_so() -> None:
    now, origin = 0.0, Told()
    queue = Queue(100, 100_000, Counter(), Counter(), clock=lambda: now)
    queue.put([expiring(1, 10), expiring(0, 10, qos=0), *messages(2)], origin)
    now = 10.0
    queue.expire()
    assert ([message.receipt for message in origin.ended], origin.outcomes) == ([1], {})
    assert queue.head(9) == (messages(2), origin)


def test_what_is_put_back_grows_older_too() -> None:
    now, ledger = 0.0, Ledger()
    queue = Queue(100, 100_000, Counter(), Counter(), clock=lambda: now)
    queue.put_back([([expiring(1, 10), expiring(2, 60)], ledger)])
    now = 30.0
    queue.expire()
    assert ledger.receipts(Outcome.REFUSED) == [1]
    assert queue.head(9) == ([expiring(2, 30)], ledger)


class QueueAsAList(RuleBasedStateMachine):
    """The queue beside a plain list of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.dropped, self.congested = make(MESSAGES_MAX, BYTES_MAX)
        self.origins = [Ledger(), Ledger()]
        self.model: list[tuple[int, int]] = []
        self.out: list[tuple[int, int]] = []
        self.put_in = 0
        self.number = 0

    @rule(sizes=st.lists(st.integers(0, 600), min_size=1, max_size=8), which=st.integers(0, 1), qos=st.integers(0, 2))
    def put(self, sizes: list[int], which: int, qos: int) -> None:
        batch = []
        for size in sizes:
            self.number += 1
            batch.append(Message("t", b"x" * size, qos=qos, receipt=self.number))
        before = self.queue.messages
        self.queue.put(batch, self.origins[which])
        taken = self.queue.messages - before
        self.model += [(which, message.receipt) for message in batch[:taken]]
        self.put_in += len(batch)

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        if self.queue:
            head, origin = self.queue.head(count)
            assert 1 <= len(head) <= count
            which = 0 if origin is self.origins[0] else 1
            expected = [self.model.pop(0) for _ in head]
            assert [(which, message.receipt) for message in head] == expected
            self.out += expected
            self.queue.advance(len(head))

    @invariant()
    def bounded_and_nothing_missing(self) -> None:
        assert self.queue.messages == len(self.model) <= MESSAGES_MAX
        assert 0 <= self.queue.bytes <= BYTES_MAX
        assert bool(self.model) == bool(self.queue)
        assert self.put_in == len(self.model) + len(self.out) + self.dropped.value + self.congested.value

    def teardown(self) -> None:
        self.queue.abandon()
        assert self.queue.messages == self.queue.bytes == 0
        told = sum(len(origin.receipts(Outcome.CONGESTED)) for origin in self.origins)
        assert told == self.congested.value


TestQueueAsAList = QueueAsAList.TestCase
