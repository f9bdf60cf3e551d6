"""Short runs of the log itself, for the harnesses that cut its power; judged by the oracle."""

from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge.log import Log, LogOptions
from tests.faults.oracle import Books, Id, Produced, Verdict, arrival, judge, payload

OPTIONS = LogOptions(segment_bytes=64 * 1024)
ALL = 1 << 40


class LogRun:
    """Records made, committed in small groups, now and then the oldest released. position: of the device's journal;
    what a commit acknowledged is safe in every image cut there or later."""

    def __init__(self, folder: Path, position: Callable[[], int]) -> None:
        self._position = position
        self.made: list[Id] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.released: list[tuple[int, int]] = [(0, 1)]
        self.begun = position()
        self._log = Log.open(str(folder), options=OPTIONS)

    def commit(self, count: int) -> None:
        fresh = [Id("board1", 1, len(self.made) + n + 1) for n in range(count)]
        self._log.append([payload(one, 200) for one in fresh])
        self.made += fresh
        self._log.put_state("mark/board1", b"%d" % len(self.made))
        self._log.commit()
        self.acknowledged.append((self._position(), len(self.made)))

    def release(self, keep: int) -> None:
        """All but the newest `keep`: they may be gone in any image cut from here on."""
        before = max(1, len(self.made) - keep)
        self.released.append((self._position(), before))
        self._log.release(before)

    def close(self) -> None:
        self._log.close()

    def judge(self, folder: Path, cut: int) -> Verdict:
        """Of what the real code finds in the folder as the cut left it. It must go on from there as well."""
        sure = self._at(self.acknowledged, cut)
        released = self._at(self.released, cut)
        log = Log.open(str(folder), options=OPTIONS)
        with closing(log):
            return self._judge(log, sure, released)

    def _judge(self, log: Log, sure: int, released: int) -> Verdict:
        found = log.read(1, records_max=ALL, bytes_max=ALL)
        mark = int(log.state.get("mark/board1", b"0"))
        assert not log.damages or all(one.reason == "tail" for one in log.damages), log.damages
        assert mark == log.next - 1, f"the mark says {mark}, records there are {log.next - 1}"
        following = log.append([b"after the cut"])
        log.commit()
        assert log.read(following, records_max=1, bytes_max=ALL) == [(following, b"after the cut")]
        made = self.made[released - 1 : max(sure, log.next - 2)]
        arrivals = [arrival(data, None) for number, data in found if number >= released]
        held = set(self.made[sure : len(made) + released - 1]) - {one.made for one in arrivals if one.made is not None}
        return judge(Books(Produced(made, set(self.made[released - 1 : sure]), held), arrivals))

    @staticmethod
    def _at(points: list[tuple[int, int]], cut: int) -> int:
        index = bisect_right(points, cut, key=lambda point: point[0]) - 1
        return points[index][1] if index >= 0 else 0


def live(run: LogRun, commits: int, *, each: int = 8) -> None:
    for number in range(commits):
        run.commit(each)
        if number % 7 == 6:
            run.release(20 * each)
