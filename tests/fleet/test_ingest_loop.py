"""The loop between broker and store, beside fakes and a clock that only sleeping moves."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge.errors import ConnectionFailed
from edge_tools.fleet.decode import Decoder
from edge_tools.fleet.ingest import Bounds, Ingest
from edge_tools.fleet.link import Incoming
from edge_tools.fleet.records import INT_MAX
from edge_tools.fleet.store import Batch, Committed, Query, Store, StoreAway, opener

GONE = ConnectionFailed("broker_closed", "the broker closed the connection", "See the broker's log.")


def reading(seq: int, mid: int) -> Incoming:
    user = [("thing", "b1"), ("boot", "1"), ("seq", str(seq))]
    return Incoming("dt/b1/temp", b"1", mid, user=user)


class World:
    """A scripted broker: each connection is a list of what `receive` gives, or raises. The script's end stops."""

    def __init__(
        self,
        store: Callable[[], Store],
        *connections: Sequence[Sequence[Incoming] | Exception],
        leave: bool = False,
    ) -> None:
        self.now = 0.0
        self.acknowledged: list[int] = []
        self.session_present, self.answered = True, True
        self._connections = [list(one) for one in connections]
        self._script: list[Sequence[Incoming] | Exception] = []
        self._stopped = False
        self.ingest = Ingest(
            store,
            self._connect,
            ["dt/#"],
            Decoder([]),
            bounds=Bounds(commit_records=10, commit_ms=100),
            stopped=lambda: self._stopped,
            leave=leave,
            random=lambda: 0.5,
            clock=lambda: self.now,
            wall_clock=lambda: 1000.0,
            sleep=self._sleep,
        )

    @property
    def unread(self) -> int:
        return len(self._script)

    def _connect(self) -> "World":
        if not self._connections:
            self._stopped = True
            raise GONE
        self._script = self._connections.pop(0)
        return self

    def _sleep(self, duration_s: float) -> None:
        self.now += duration_s

    def open(self, filters: Sequence[str]) -> None:
        assert filters == ["dt/#"]

    def receive(self, wait_s: float) -> Sequence[Incoming]:
        if not self._script:
            self._stopped = not self._connections
            raise GONE
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        if not step:
            self.now += wait_s
        return step

    def acknowledge(self, mids: Sequence[int]) -> None:
        self.acknowledged += mids

    def close(self) -> None:
        pass


class Failing:
    """A store whose commits fail as the script says, before or after they are made."""

    def __init__(self, store: Store, script: list[str]) -> None:
        self._store, self._script = store, script

    def commit(self, batch: Batch) -> Committed:
        step = self._script.pop(0) if self._script else ""
        if step == "before":
            raise StoreAway("database_away", "gone", "Look.")
        done = self._store.commit(batch)
        if step == "after":
            raise StoreAway("database_away", "gone", "Look.")
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 't.db'}"


def stored(address: str) -> list[int | None]:
    store = opener(address)(False)
    found = [one.seq for one in store.query(Query())]
    store.close()
    return found


def test_messages_are_acknowledged_in_order_after_their_commit(address: str) -> None:
    world = World(lambda: opener(address)(True), [[reading(1, 1), reading(2, 2)], [reading(3, 3)], []])
    world.ingest.run()
    assert world.acknowledged == [1, 2, 3]
    assert stored(address) == [1, 2, 3]


@pytest.mark.parametrize("point", ["before", "after"])
def test_what_a_failed_commit_held_is_not_acknowledged_and_comes_again(address: str, point: str) -> None:
    script = [point]
    world = World(
        lambda: Failing(opener(address)(True), script),  # type: ignore[return-value,arg-type]
        [[reading(1, 1)], []],
        [[reading(1, 7)], []],
    )
    world.ingest.run()
    assert world.acknowledged == [7]
    assert stored(address) == [1]


def test_what_came_before_the_connection_ended_is_kept_when_the_broker_lost_the_session(address: str) -> None:
    world = World(lambda: opener(address)(True), [[reading(1, 1)]], [[], []])
    world.session_present = False
    world.ingest.run()
    assert not world.acknowledged
    assert stored(address) == [1]


def test_what_came_before_the_connection_ended_is_left_to_a_broker_that_has_the_session(address: str) -> None:
    world = World(lambda: opener(address)(True), [[reading(1, 1)]], [[], []])
    world.ingest.run()
    assert stored(address) == []


def test_a_record_that_the_database_refuses_is_rejected_and_the_others_stored(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_tools.fleet.records.INT_MAX", 2**70)
    world = World(lambda: opener(address)(True), [[reading(1, 1), reading(INT_MAX + 1, 2), reading(3, 3)], []])
    world.ingest.run()
    assert world.acknowledged == [1, 2, 3]
    assert stored(address) == [1, 3]
    assert world.ingest.totals.rejected == {"refused_by_database": 1}


def test_a_cause_is_logged_once_until_it_changes(address: str, caplog: pytest.LogCaptureFixture) -> None:
    refused = ConnectionFailed("subscription_refused", "no", "Allow it.")
    broken: Sequence[Sequence[Sequence[Incoming] | Exception]] = [[[], GONE]] * 3
    world = World(lambda: opener(address)(True), *broken, *[[refused]] * 3, *[[GONE]] * 2)
    with caplog.at_level(logging.INFO):
        world.ingest.run()
    causes = [record.fields["cause"] for record in caplog.records if record.message == "ingest_failed"]  # type: ignore[attr-defined]
    assert causes == ["broker_closed", "subscription_refused", "broker_closed"]


def test_a_fault_of_our_own_does_not_end_it(address: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World(lambda: opener(address)(True), [[reading(1, 1)], ZeroDivisionError()], [[reading(1, 2)], []])
    world.ingest.run()
    assert stored(address) == [1]
    assert "ingest_broke" in caplog.text


def test_a_commit_is_made_at_its_number_of_records_without_waiting(address: str) -> None:
    many = [[reading(seq, seq)] for seq in range(1, 26)]
    world = World(lambda: opener(address)(True), [*many, []])
    world.ingest.run()
    assert world.ingest.totals.stored == 25
    assert world.acknowledged == list(range(1, 26))


def test_one_that_leaves_ends_when_nothing_came_for_a_while_and_all_is_acknowledged(address: str) -> None:
    pauses: list[Sequence[Incoming]] = [[]] * 5
    world = World(
        lambda: opener(address)(True), [*pauses, [reading(1, 1)], *pauses, [reading(2, 2)], *[[]] * 50], leave=True
    )
    world.ingest.run()
    assert world.acknowledged == [1, 2]
    assert world.ingest.left
    assert 0 < world.unread < 45


def test_one_that_leaves_takes_its_time_when_the_connection_ends(address: str) -> None:
    world = World(lambda: opener(address)(True), [[reading(1, 1)]], [[reading(1, 2)], *[[]] * 50], leave=True)
    world.ingest.run()
    assert world.acknowledged == [2]
    assert world.ingest.left


def test_one_that_is_stopped_before_it_left_says_that_it_has_not(address: str) -> None:
    world = World(lambda: opener(address)(True), [[reading(1, 1)], []], leave=True)
    world.ingest.run()
    assert not world.ingest.left
