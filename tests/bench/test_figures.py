import json
import re
from pathlib import Path

import msgspec
import pytest

from tests.bench.figures import Context, Figure, NoFigure, Report, check_all_arrived, figure, times
from tests.bench.host import commit_id, host_line


def test_a_figure_is_the_median_of_its_repeats_with_lowest_and_highest() -> None:
    made = figure("cpu_s", [1.5, 1.4, 9.0], "s", "lower", goal=1.6)
    assert (made.value, made.spread, made.met) == (1.5, (1.4, 9.0), True)


def test_a_goal_that_is_a_ratio_comes_from_the_reference_of_the_same_run() -> None:
    made = figure("msgs", [80, 90, 100], "1/s", "higher", goal=times(0.9, "peer"), references={"peer": [90, 110, 100]})
    assert made.references == {"peer": 100}
    assert (made.goal, made.met) == (90, True)


def test_a_missed_goal_is_said_in_both_directions() -> None:
    assert figure("a", [2.0], "s", "lower", goal=1).met is False
    assert figure("a", [2.0], "s", "higher", goal=3).met is False
    assert figure("a", [2.0], "s", "higher").met is None


def test_a_figure_of_nothing_is_no_figure() -> None:
    with pytest.raises(NoFigure, match="nothing was measured"):
        figure("a", [], "s", "lower")


def test_messages_that_did_not_all_arrive_give_no_figure() -> None:
    check_all_arrived("relay", 100_000, 100_000)
    with pytest.raises(NoFigure, match="relay: 99,999 of 100,000 arrived"):
        check_all_arrived("relay", 100_000, 99_999)


def test_contenders_take_turns_and_every_second_round_runs_backwards(tmp_path: Path) -> None:
    ran: list[str] = []

    def run(name: str) -> int:
        ran.append(name)
        return len(ran)

    context = Context(tmp_path, tmp_path, quick=True)
    results = context.interleaved({"a": lambda: run("a"), "b": lambda: run("b")})
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert results == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_five_repeats_and_three_when_quick(tmp_path: Path) -> None:
    assert Context(tmp_path, tmp_path).repeats == 5
    assert Context(tmp_path, tmp_path, quick=True).repeats == 3


def test_a_report_encodes_to_exactly_the_keys_of_the_conventions() -> None:
    report = Report("relay", "abc", "2 cores", [Figure("x", 1.4, (1.38, 1.52), "s", "lower", 1.6, {"paho": 7.3})])
    assert json.loads(msgspec.json.encode(report)) == {
        "bench": "relay",
        "commit": "abc",
        "host": "2 cores",
        "figures": [
            {
                "name": "x",
                "value": 1.4,
                "spread": [1.38, 1.52],
                "unit": "s",
                "better": "lower",
                "goal": 1.6,
                "references": {"paho": 7.3},
            }
        ],
    }


def test_host_line_names_cores_memory_and_python() -> None:
    assert re.fullmatch(r"\d+ cores?, \d+ [GM]iB, Python 3\.\d+\.\d+\S*", host_line())


def test_commit_of_no_checkout_is_unknown(tmp_path: Path) -> None:
    assert commit_id(tmp_path) == "unknown"
