"""The contract of every store, over SQLite and a real PostgreSQL."""

import threading
from collections.abc import Iterator

import pytest

from edge.errors import ConfigError
from edge_tools.fleet import postgresql, sqlite
from edge_tools.fleet.records import AVERAGES, INT_MAX, Record, Rejection
from edge_tools.fleet.store import REJECTED_MAX, Batch, Committed, Losses, Missing, Query, Store, StoreRefused, opener


def reading(seq: int, *, thing: str = "b1", boot: int = 1, t: int | None = None, payload: bytes = b"1") -> Record:
    return Record(f"dt/{thing}/temp", payload, 1000 + seq % 1000, thing, boot, seq, t)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = opener(database)(True)
    yield opened
    opened.close()


def test_a_record_is_stored_once_however_often_it_comes(store: Store) -> None:
    assert store.commit(Batch([reading(1), reading(2), reading(1)])) == Committed(stored=2, repeats=1)
    assert store.commit(Batch([reading(2), reading(3)])) == Committed(stored=1, repeats=1)
    assert [record.seq for record in store.query(Query())] == [1, 2, 3]


def test_a_record_comes_back_as_it_went_in(store: Store) -> None:
    extreme = Record("ä/b", bytes(range(256)), 5, "thing ü%_'\"", INT_MAX, INT_MAX, 253_402_300_799_999)
    bare = Record("x", b"", 6)
    store.commit(Batch([extreme, bare]))
    assert list(store.query(Query())) == [bare, extreme]


def test_records_without_identity_are_all_kept_and_counted(store: Store) -> None:
    partial = Record("x", b"1", 1, thing="b1", seq=5)
    assert store.commit(Batch([partial, partial, Record("x", b"1", 1)])) == Committed(stored=3)
    assert len(list(store.query(Query()))) == 3
    assert store.counters() == {"without_identity": 3}


def test_an_identity_taken_by_another_content_is_entered_as_rejected(store: Store) -> None:
    other = reading(1, payload=b"other")
    store.commit(Batch([reading(1)]))
    assert store.commit(Batch([other, reading(1), reading(2)])) == Committed(stored=1, repeats=1, conflicts=1)
    assert [(one.reason, one.sample) for one in store.rejected(9)] == [("identity_conflict", b"other")]
    assert store.counters() == {"rejected:identity_conflict": 1}
    assert [record.payload for record in store.query(Query())] == [b"1", b"1"]


def test_a_clash_within_one_batch_is_found_too(store: Store) -> None:
    batch = Batch([reading(1), reading(1, payload=b"other"), reading(1)])
    assert store.commit(batch) == Committed(stored=1, repeats=1, conflicts=1)


def test_a_query_takes_thing_topic_and_time(store: Store) -> None:
    store.commit(Batch([reading(seq, thing=thing, t=seq * 10) for thing in ("a", "b") for seq in (3, 1, 2)]))
    store.commit(Batch([Record("dt/a/hum", b"", 25, "a", 2, 1)]))

    def found(**wanted: object) -> list[tuple[str | None, int | None]]:
        return [(record.thing, record.seq) for record in store.query(Query(**wanted))]  # type: ignore[arg-type]

    assert found() == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 1), ("a", 3), ("b", 3)]
    assert found(thing="b") == [("b", 1), ("b", 2), ("b", 3)]
    assert found(begin=20, end=30) == [("a", 2), ("b", 2), ("a", 1)]
    assert found(topic_filter="dt/+/hum") == [("a", 1)]
    assert found(topic_filter="dt/a/#", limit=2) == [("a", 1), ("a", 3)]
    assert found(limit=3) == [("a", 1), ("a", 3), ("b", 3)]


def test_records_are_followed_by_number_up_to_the_horizon(store: Store) -> None:
    store.commit(Batch([reading(1), reading(2)]))
    horizon = max(store.horizon() for _ in range(3))
    first = store.after(0, horizon, 1)
    rest = store.after(first[0][0], horizon, 10)
    assert [record.seq for _, record in [*first, *rest]] == [1, 2]
    store.commit(Batch([reading(3)]))
    assert not store.after(horizon, horizon, 10)
    assert [r.seq for _, r in store.after(horizon, max(store.horizon() for _ in range(3)), 10)] == [3]


def test_losses_account_for_every_sequence_number(store: Store) -> None:
    store.commit(Batch([reading(seq) for seq in (9, 2, 3, 5)]))
    store.commit(Batch([reading(1, boot=2), reading(2, boot=2), reading(INT_MAX, thing="B"), Record("x", b"", 1)]))
    store.commit(Batch([reading(AVERAGES + 5)]))
    far = Losses("B", 1, INT_MAX, INT_MAX, 1, INT_MAX - 1, (Missing(1, INT_MAX - 1),))
    one = Losses("b1", 1, 2, 9, 4, 5, (Missing(1, 1), Missing(4, 4), Missing(6, 8)))
    two = Losses("b1", 2, 1, 2, 2, 0)
    assert list(store.losses()) == [far, one, two]
    assert list(store.losses("b1")) == [one, two]


def test_the_numbers_of_a_gateways_log_go_on_over_its_boots_and_may_be_other_records(store: Store) -> None:
    def named(thing: str, **boots: tuple[int, ...]) -> list[Record]:
        return [reading(seq, thing=thing, boot=int(boot[1:])) for boot, seqs in boots.items() for seq in seqs]

    store.commit(Batch(named("g/s", b5=(1, 2, 3), b7=(4, 5), b9=(8,)) + named("g/rule/r", b5=(2, 3), b7=(2, 3))))
    assert list(store.losses()) == [
        Losses("g/rule/r", 5, 2, 3, 2, 0, (), 1, (Missing(1, 1),)),
        Losses("g/rule/r", 7, 2, 3, 2, 0),  # a log that began anew
        Losses("g/s", 5, 1, 3, 3, 0),
        Losses("g/s", 7, 4, 5, 2, 0),
        Losses("g/s", 9, 8, 8, 1, 0, (), 2, (Missing(6, 7),)),
    ]


def test_things_whose_names_sort_otherwise_in_a_language_keep_their_own_gaps(store: Store) -> None:
    names = ["a", "B", "ä", "Z", "_", "a-b", "ab"]
    store.commit(Batch([reading(seq, thing=name) for name in names for seq in (1, 3)]))
    assert {one.thing: one.missing for one in store.losses()} == dict.fromkeys(names, (Missing(2, 2),))


def test_rejected_input_is_bounded_and_all_of_it_counted(store: Store) -> None:
    many = [Rejection("bad_json", str(number), "t", b"\0{", number) for number in range(REJECTED_MAX + 5)]
    store.commit(Batch(rejections=many[:3], counts={"bad_json": 7, "bad_seq": 1}))
    store.commit(Batch(rejections=many))
    kept = store.rejected(2 * REJECTED_MAX)
    assert len(kept) == REJECTED_MAX
    assert kept[0] == many[-1]
    assert store.counters() == {"rejected:bad_json": REJECTED_MAX + 5 + 3 + 7, "rejected:bad_seq": 1}


def test_what_is_committed_is_there_when_it_is_opened_again(database: str) -> None:
    first = opener(database)(True)
    first.commit(Batch([reading(1)]))
    first.close()
    again = opener(database)(True)
    assert again.commit(Batch([reading(1)])) == Committed(repeats=1)
    again.close()


def test_several_writers_of_the_same_records_store_each_once(database: str) -> None:
    opener(database)(True).close()
    stored: list[int] = []

    def write(offset: int) -> None:
        mine = opener(database)(True)
        for begin in range(0, 400, 40):
            seqs = [(begin + place * 7 + offset * 13) % 400 for place in range(100)]
            stored.append(mine.commit(Batch([reading(seq) for seq in seqs])).stored)
        mine.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = opener(database)(False)
    found = [record.seq for record in reader.query(Query())]
    reader.close()
    assert len(found) == len(set(found)) == sum(stored)
    assert len(stored) == 40


def test_a_reader_refuses_a_database_without_telemetry(database: str) -> None:
    with pytest.raises(ConfigError, match=r"it does not exist|holds no telemetry"):
        opener(database)(False)


def test_a_schema_from_a_newer_program_is_refused_with_the_way_back(database: str) -> None:
    newer = open_with(database, MIGRATIONS_2)
    newer.close()
    for write in (True, False):
        with pytest.raises(ConfigError, match="version 2, this program knows versions up to 1") as refused:
            opener(database)(write)
        assert "go back" in refused.value.fix


def test_a_schema_of_version_1_is_upgraded_with_all_it_holds(database: str) -> None:
    first = opener(database)(True)
    first.commit(Batch([reading(1)]))
    first.close()
    newer = open_with(database, MIGRATIONS_2)
    assert newer.commit(Batch([reading(1), reading(2)])) == Committed(stored=1, repeats=1)
    newer.close()


MIGRATIONS_2 = "CREATE TABLE later (a bigint)"


def open_with(database: str, further: str) -> Store:
    if database.startswith("sqlite"):
        file = database.removeprefix("sqlite:///")
        return sqlite.open_store(file, write=True, migrations=(*sqlite.MIGRATIONS, (further.replace("big", ""),)))
    return postgresql.open_store(database, write=True, migrations=(*postgresql.MIGRATIONS, (further,)))


def test_a_value_the_database_cannot_hold_is_refused_and_nothing_of_its_batch_stored(store: Store) -> None:
    with pytest.raises(StoreRefused):
        store.commit(Batch([reading(1), reading(INT_MAX + 1)]))
    assert store.commit(Batch([reading(1)])) == Committed(stored=1)


@pytest.mark.parametrize(
    "address", ["", "mysql://x", "sqlite:///", "sqlite:x", "postgresql://[", "postgresql://h/?x=1"]
)
def test_an_address_that_names_no_database_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///FILE"):
        opener(address)
