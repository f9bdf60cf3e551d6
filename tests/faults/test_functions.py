"""The gateway, or a function's worker, is killed at system calls that change the data folder: no reading is lost."""

from pathlib import Path

from tests.faults.functions import function_calls_of, strike_functions
from tests.faults.kills import spread

MOST = 24


def test_a_kill_at_any_write_loses_no_message_that_a_function_was_to_get(tmp_path: Path) -> None:
    calls = function_calls_of(tmp_path / "whole")
    inbox = [kill for kill in calls if kill.path.startswith("functions/relay/inbox")]
    # What a worker itself opens is struck in every worker anew: it would never start.
    its_own = ("functions/relay/work", "functions/relay/code/")
    others = [kill for kill in calls if kill not in inbox and not kill.path.startswith(its_own)]
    others += [kill for kill in calls if "/.partial" in kill.path]
    assert {"pwrite64", "fdatasync"} <= {kill.call for kill in inbox}
    struck = strike_functions(tmp_path, [*spread(inbox, MOST // 2), *spread(others, MOST // 2)])
    died = [where for where, _ in struck if where]
    assert len(died) >= 0.6 * len(struck)
