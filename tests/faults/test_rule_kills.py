"""The gateway is killed with SIGKILL at every system call that changes its data folder, with rules at work: the rows
that arrive are those of a run that nothing interrupted."""

import random
import time
from pathlib import Path
from typing import Any

from tests.faults.kills import DRAIN_S, Run, calls_of, spread, strike_all
from tests.faults.oracle import Verdict
from tests.faults.waiting import comes_about

MOST = 30
RECORDS = 40

# The readings' own sequence is the event time.
RULES = """
[rules]
commit = "20 ms"
[[rule]]
name = "tumbling"
sql = "SELECT count(*) AS n, sum(seq) AS s, window_start() AS w FROM 'dt/#' GROUP BY boot, TUMBLINGWINDOW(ms, 7)"
time = "seq"
to = ["cloud"]
[[rule]]
name = "hopping"
sql = "SELECT avg(seq) AS a FROM 'dt/#' GROUP BY thing, HOPPINGWINDOW(ms, 8, 3)"
time = "seq"
lateness_s = 0.002
to = ["cloud"]
[[rule]]
name = "session"
sql = "SELECT collect(seq) AS c FROM 'dt/#' WHERE mod(seq, 7) > 2 GROUP BY SESSIONWINDOW(ms, 2)"
time = "seq"
to = ["cloud"]
[[rule]]
name = "counted"
sql = "SELECT last(seq) AS l FROM 'dt/#' GROUP BY mod(seq, 3), COUNTWINDOW(4)"
to = ["cloud"]
[[rule]]
name = "changed"
sql = "SELECT seq FROM 'dt/#' WHERE changed(seq, 3) AND every(2)"
to = ["cloud"]
[[rule]]
name = "sliding"
sql = "SELECT avg(seq) AS a, first(seq) AS f FROM 'dt/#' GROUP BY mod(seq, 2), SLIDINGWINDOW(ms, 9)"
time = "seq"
lateness_s = 0.002
to = ["cloud"]
[[rule]]
name = "join"
sql = '''SELECT a.seq AS a, b.seq AS b FROM 'dt/#' AS a JOIN 'dt/#' AS b ON mod(a.seq, 5) = mod(b.seq, 5)
 AND a.seq < b.seq GROUP BY HOPPINGWINDOW(ms, 12, 6)'''
time = "seq"
to = ["cloud"]
[[rule]]
name = "on"
sql = "SELECT sum(n) AS n FROM 'rule/tumbling' GROUP BY COUNTWINDOW(2)"
from = ["rule:tumbling"]
to = ["cloud"]
"""


class RuleRun(Run):
    """expected: the rows, by topic in their order; None for the run that says what they are."""

    def __init__(self, folder: Path, expected: dict[str, list[bytes]] | None = None, **options: Any) -> None:
        super().__init__(folder, RECORDS, more=RULES, **options)
        self.expected = expected

    def drain(self, patience_s: float = DRAIN_S) -> Verdict:
        if self.gateway.ended():
            self.gateway.start()
        if self.expected is not None:
            comes_about(lambda: self.cloud.rows() == self.expected, patience_s)
        verdict = super().drain(patience_s)
        rows = self.cloud.rows()
        assert self.expected is None or rows == self.expected, f"{rows}, not {self.expected}"
        return verdict


def uninterrupted(folder: Path) -> dict[str, list[bytes]]:
    run = RuleRun(folder)
    try:
        run.gateway.start()
        run.live()
        assert comes_about(lambda: len(run.cloud.rows().get("rule/on", ())) == 2, DRAIN_S), run.cloud.rows()
        run.drain().check()
        rows = run.cloud.rows()
    finally:
        run.close()
    assert {topic: len(found) for topic, found in rows.items()} == {
        "rule/tumbling": 5, "rule/hopping": 13, "rule/session": 5, "rule/counted": 9, "rule/changed": 7, "rule/on": 2,
        "rule/sliding": 38, "rule/join": 43,
    }  # fmt: skip
    return rows


def test_a_gateway_killed_at_any_write_gives_the_rows_of_an_uninterrupted_run(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path / "whole")
    calls = calls_of(tmp_path / "traced", RuleRun, expected=expected)
    rules = [kill for kill in calls if kill.path.startswith("rules")]
    assert {"openat", "pwrite64", "fdatasync", "fsync"} <= {kill.call for kill in rules}, calls
    struck = strike_all(tmp_path, spread(rules, MOST), make=RuleRun, expected=expected)
    died = [one for one in struck if one.where]
    assert len(died) >= 0.8 * len(struck), [str(one.kill) for one in struck if not one.where]


def test_a_gateway_killed_at_random_gives_the_rows_of_an_uninterrupted_run(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path / "whole")
    run, rng = RuleRun(tmp_path, expected), random.Random(7)
    try:
        made = 0
        while made < RECORDS:
            run.gateway.start()
            comes_about(run.gateway.status, DRAIN_S)
            burst = min(rng.randint(1, 8), RECORDS - made)
            run.boards.produce(burst)
            made += burst
            time.sleep(rng.uniform(0, 0.3))
            run.gateway.kill()
        run.drain().check()
    finally:
        run.close()
