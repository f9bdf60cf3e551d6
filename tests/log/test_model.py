"""A log beside a list: whatever is done to it, and to the disk under it, both tell the same."""

import errno
import random
import struct
from itertools import islice

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.log import Log
from edge.log.format import BATCH_BYTES, BATCH_MAGIC, parse_batch
from edge.metrics import Metrics
from tests.log.disk import Disk, Killed, power_cuts
from tests.log.history import FOLDER, Held, History, judge, options, read_all

payloads = st.one_of(st.binary(max_size=40), st.integers(0, 3000).map(lambda size: b"json " * (size // 5)))
keys = st.sampled_from(["mark/a", "mark/b", "cursor", "losses"])


class LogBesideAList(RuleBasedStateMachine):
    """history.sure is the list."""

    @initialize(segment_bytes=st.sampled_from([12 * 1024, 16 * 1024, 40 * 1024]), seed=st.integers(0, 1 << 16))
    def begin(self, segment_bytes: int, seed: int) -> None:
        self.options = options(segment_bytes)
        self.history = History(Disk(), self.options)
        self.base = Disk()
        self.rng = random.Random(seed)
        self.batches: list[tuple[int, int]] = []
        self.heads_hit = False
        self.settled: dict[int, bytes] = {}
        self.flipped: set[tuple[str, int]] = set()

    @property
    def log(self) -> Log:
        return self.history.log

    @rule(records=st.lists(payloads, max_size=5))
    def append(self, records: list[bytes]) -> None:
        following = self.log.next_appended
        assert self.log.append(records) == following

    @rule(key=keys, value=st.one_of(st.none(), st.binary(max_size=20)))
    def put_state(self, key: str, value: bytes | None) -> None:
        self.log.put_state(key, value)

    @rule(share=st.floats(0, 1))
    def release(self, share: float) -> None:
        self.log.release(self.log.first + round((self.log.next - self.log.first) * share))

    def _note_batch(self) -> None:
        """What was committed since the last time is one batch."""
        self.settled.update(self.history.sure.records)
        last = self.batches[-1][1] if self.batches else 1
        if self.log.next > last:
            self.batches.append((last, self.log.next))

    @rule()
    def commit(self) -> None:
        self.history.commit()
        self._note_batch()

    @rule(every=st.sampled_from([2, 3, 1000]))
    @precondition(lambda self: self.log.sealed is None)
    def thin(self, every: int) -> None:
        self.history.thin(every)

    @rule(share=st.floats(0, 1), records_max=st.integers(1, 9), bytes_max=st.integers(1, 4000))
    def read(self, share: float, records_max: int, bytes_max: int) -> None:
        sure = self.history.sure
        number = 1 + round(sure.next * share)
        taken = self.log.read(number, records_max=records_max, bytes_max=bytes_max)
        floor = max(number, self.log._keep_wanted)
        wanted = list(islice(((n, data) for n, data in sorted(sure.records.items()) if n >= floor), records_max))
        assert taken == wanted[: len(taken)]
        if len(taken) < len(wanted):
            assert taken
            assert sum(len(data) for _, data in wanted[: len(taken) + 1]) > bytes_max
        assert sum(len(data) for _, data in taken[1:]) <= bytes_max

    @rule()
    def kill(self) -> None:
        self.history.kill()
        self._note_batch()

    @rule(after=st.integers(0, 12))
    def kill_within_a_commit(self, after: int) -> None:
        at = self.history.disk.index + after

        def die(index: int, kind: str) -> None:
            if index >= at:
                raise Killed

        self.history.disk.fault = die
        try:
            self.history.commit()
        except Killed:
            pass
        finally:
            self.history.disk.fault = lambda index, kind: None
        self.history.kill()
        self._note_batch()

    @rule(after=st.integers(0, 6), code=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def fail_within_a_commit(self, after: int, code: int) -> None:
        at = self.history.disk.index + after

        def fail(index: int, kind: str) -> None:
            if index == at:
                raise OSError(code, kind)

        self.history.disk.fault = fail
        try:
            self.history.commit()
        except OSError:
            assert self.log.sealed is not None
        finally:
            self.history.disk.fault = lambda index, kind: None
        self._note_batch()

    @rule(choice=st.integers(0, 7))
    def cut_the_power(self, choice: int) -> None:
        journal = self.history.disk.journal
        seed = self.rng.randrange(1 << 16)
        cuts = list(power_cuts(journal, self.base, seed=seed, since=len(journal)))
        disk = cuts[choice % len(cuts)].disk
        disk.folders |= self.history.disk.folders
        self._go_on_with(disk)

    def _go_on_with(self, disk: Disk) -> None:
        self.base = disk.copy()
        self.history.restart(disk)
        self.batches = [(first, until) for first, until in self.batches if until <= self.log.next]
        self._note_batch()

    def _segments(self) -> list[str]:
        if self.history.perhaps:
            return []
        return sorted(name for name in self.history.disk.names if name.endswith(".segment") and "spare" not in name)

    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        if not (segments := self._segments()):
            return
        name = data.draw(st.sampled_from(segments))
        content = self.history.disk.content(name)
        last = max(len(bytes(content).rstrip(b"\0")) - 1, 0)
        batches_at = min(struct.unpack_from("<I", content, 44)[0], last)
        # The heads are far larger than the batches of most examples, which would be hit too seldom.
        at = data.draw(st.one_of(st.integers(batches_at, last), st.integers(0, last)))
        self.flip(name, (at, data.draw(st.integers(0, 7))))

    @rule(data=st.data(), bits=st.sets(st.integers(0, 8 * BATCH_BYTES - 1), min_size=2, max_size=3))
    def flip_bits_of_a_header(self, data: st.DataObject, bits: set[int]) -> None:
        if not (segments := self._segments()):
            return
        name = data.draw(st.sampled_from(segments))
        content = bytes(self.history.disk.content(name))
        salt, at = (struct.unpack_from("<I", content, place)[0] for place in (12, 44))
        headers = []
        while (at := content.find(BATCH_MAGIC, at)) >= 0:
            headers += [at] if parse_batch(content, at, salt) is not None else []
            at += 1
        if headers:
            at = data.draw(st.sampled_from([*headers, headers[-1]]))
            self.flip(name, *[(at + bit // 8, bit % 8) for bit in sorted(bits)])

    def flip(self, name: str, *bits: tuple[int, int]) -> None:
        """bits: (byte, bit), all in one batch or head."""
        disk = self.history.disk.copy()
        content = disk.content(name)
        # On the same byte it would make good what was damaged.
        if any((name, at) in self.flipped for at, _ in bits):
            return
        if bits[0][0] < struct.unpack_from("<I", content, 44)[0]:
            if self.heads_hit:  # both copies hit: nothing is promised
                return
            self.heads_hit = True
        for at, bit in bits:
            self.flipped.add((name, at))
            content[at] ^= 1 << bit
        self._lose_one_batch(disk)

    def _opened(self, disk: Disk) -> tuple[Log, int]:
        """And how many damages that counted."""
        metrics = Metrics()
        log = Log.open(FOLDER, disk, options=self.options, metrics=metrics)
        read_all(log)
        return log, sum(
            int(value) for name, value in metrics.snapshot().items() if "batches_damaged" in name or "cut" in name
        )

    def _lose_one_batch(self, disk: Disk) -> None:
        """Every opening counts what it finds damaged, so what stood damaged before is counted again; neighbours count
        as one stretch. A release that is lost is undone: what it released is found again, as far as it is there."""
        sure = self.history.sure
        ranges = [(segment.first, segment.next) for segment in self.log.segments if segment.generation]
        counted_before = self._opened(self.history.disk.copy())[1]
        log, counted = self._opened(disk)
        found = dict(read_all(log))
        lost = set(sure.records) - set(found)
        assert found.items() <= (self.settled | sure.records).items()
        assert all(number in sure.records or log.first <= number < sure.first for number in found)
        assert log.next <= sure.next
        if lost or dict(log.state) != sure.state or log.next != sure.next or log.first != sure.first:
            assert 1 <= counted <= counted_before + 1
            assert not lost or any(first <= min(lost) <= max(lost) < until for first, until in self.batches + ranges)
        self.history.sure = Held(found, dict(log.state), log.first, log.next)
        self._go_on_with(disk)

    @invariant()
    def both_tell_the_same(self) -> None:
        if not hasattr(self, "history"):
            return
        log, sure = self.log, self.history.sure
        assert (log.next, dict(log.state)) == (sure.next, sure.state)
        assert log.first <= max(sure.first, log._keep_wanted)
        if log._keep_wanted <= sure.first and not self.history.perhaps:
            judge(log, sure, [])
        assert self.history.disk.used(FOLDER) <= log.bytes_held + 2 * self.options.segment_bytes


LogBesideAList.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=True,
)
TestALogBesideAList = LogBesideAList.TestCase


def a_release_behind_its_record() -> tuple[LogBesideAList, str, int]:
    """And the segment, and where its second batch, which releases the record of the first, stands."""
    machine = LogBesideAList()
    machine.begin(segment_bytes=16 * 1024, seed=0)
    machine.append(records=[b""])
    machine.commit()
    machine.release(share=1.0)
    machine.commit()
    (name,) = (name for name in machine.history.disk.names if name.endswith(".segment"))
    content = machine.history.disk.content(name)
    first = content.index(BATCH_MAGIC, struct.unpack_from("<I", content, 44)[0])
    return machine, name, content.index(BATCH_MAGIC, first + 1)


def test_what_a_damaged_release_had_released_is_found_again() -> None:
    machine, name, at = a_release_behind_its_record()
    assert machine.log.first == 2
    machine.flip(name, (at + 8, 0))
    assert (machine.log.first, read_all(machine.log)) == (1, [(1, b"")])
    machine.both_tell_the_same()


def test_damage_that_stands_is_counted_again_beside_new_damage() -> None:
    machine, name, at = a_release_behind_its_record()
    machine.flip(name, (at - 1, 0))
    machine.append(records=[b"x"])
    machine.commit()
    third = machine.history.disk.content(name).index(BATCH_MAGIC, at + 1)
    machine.flip(name, (third + 8, 0))
    assert [damage.reason for damage in machine.log.damages] == ["bad_crc", "tail"]
    machine.both_tell_the_same()
