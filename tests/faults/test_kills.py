"""The gateway is killed with SIGKILL at every system call that changes its data folder. Nothing acknowledged goes."""

from pathlib import Path

import pytest

from tests.faults.kills import FULL, Kill, Run, calls_of, spread, strike_all

# ./tools/bench faults kills at all of them.
MOST = 30
MOST_FULL = 4
MOST_SLOW = 10


@pytest.mark.parametrize("backlog", [0, 100], ids=["from the first start", "from a start with a backlog"])
def test_a_gateway_killed_at_any_write_loses_nothing_and_shows_nothing_twice(tmp_path: Path, backlog: int) -> None:
    calls = calls_of(tmp_path / "whole", backlog=backlog)
    kinds = {kill.call for kill in calls}
    assert {"openat", "pwrite64", "fdatasync", "fsync"} <= kinds, calls
    struck = strike_all(tmp_path, spread(list(calls), MOST), backlog=backlog)
    died = [one for one in struck if one.where]
    assert len(died) >= 0.8 * len(struck), [str(one.kill) for one in struck if not one.where]


@pytest.mark.parametrize(("commit", "syncs"), [("never", False), ("1 s", True)])
def test_a_kill_at_any_write_loses_nothing_whenever_the_disk_is_asked_to_write(
    tmp_path: Path, commit: str, syncs: bool
) -> None:
    """What a process has written outlives it; only the power takes what the disk was never asked for."""
    calls = list(calls_of(tmp_path / "whole", commit=commit, records=10))
    assert syncs is any(kill.call == "fdatasync" for kill in calls)
    strike_all(tmp_path, spread(calls, MOST_SLOW), commit=commit, records=10)


@pytest.mark.parametrize("policy", FULL)
def test_a_gateway_killed_while_its_policy_makes_room_accounts_for_every_record(tmp_path: Path, policy: str) -> None:
    calls = list(calls_of(tmp_path / "whole", **FULL[policy]))
    # Nothing is shed before the stream is nearly full.
    struck = strike_all(tmp_path, spread(calls[len(calls) // 2 :], MOST_FULL), **FULL[policy])
    verdicts = [one.verdict for one in struck]
    assert all(sum(one.shed.values()) > 100 for one in verdicts), [one.shed for one in verdicts]
    if policy == "averages":
        # What goes out just while it is thinned arrives as it was, and is told as thinned all the same.
        told = [(one.received, one.averaged, one.shed["thinned"]) for one in verdicts]
        assert all(received + averaged >= 2000 for received, averaged, _ in told), told
        assert all(100 < averaged <= thinned for _, averaged, thinned in told), told


def test_the_harness_finds_a_gateway_that_acknowledges_before_the_commit(tmp_path: Path) -> None:
    """Its stream's folder goes away with the kill, as if what it had told the boards had never been written."""
    run = Run(tmp_path)
    try:
        run.cloud.stop()
        run.gateway.start()
        run.live()
        run.gateway.kill()
        for file in (run.gateway.data / "streams" / "readings").iterdir():
            file.unlink()
        run.cloud.start()
        run.boards.produce(1)
        verdict = run.drain(patience_s=3)
        assert len(verdict.lost_acknowledged) == run.records
        with pytest.raises(AssertionError, match="lost_acknowledged: 20"):
            verdict.check()
    finally:
        run.close()


def test_kills_are_spread_from_the_first_to_the_last() -> None:
    kills = [Kill("file", "pwrite64", number) for number in range(1, 101)]
    chosen = spread(kills, 10)
    assert (len(chosen), chosen[0], chosen[-1]) == (10, kills[0], kills[-1])
    assert spread(kills, 1000) == kills
