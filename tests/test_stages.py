import sys
from pathlib import Path

import pytest

from edge_tools import stages
from edge_tools.stages import Stage, choose, run_all, run_stage


def saying(name: str, *programs: str, emulator: bool = False) -> Stage:
    return Stage(name, f"says {name}", tuple((sys.executable, "-c", program) for program in programs), emulator)


GOOD = saying("good", "print('begins')", "print('== 3 passed ==')")
BAD = saying("bad", "print('why it failed'); raise SystemExit(1)", "print('never')")


def test_all_stages_run_and_one_that_failed_makes_the_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all([BAD, GOOD], tmp_path, tmp_path / "logs") == 1
    out = capsys.readouterr().out
    assert out.index("why it failed") < out.index("── good") < out.index("1 of 2 stages failed")
    assert out.rstrip().endswith(": bad")
    assert "never" not in (tmp_path / "logs/bad.log").read_text()


def test_each_stage_shows_its_name_and_its_closing_line_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all([GOOD], tmp_path, tmp_path / "logs") == 0
    out = capsys.readouterr().out
    assert "── good: says good\n   3 passed (" in out
    assert "begins" not in out
    assert "begins" in (tmp_path / "logs/good.log").read_text()


def test_a_stage_without_a_word_still_has_a_closing_line(tmp_path: Path) -> None:
    assert run_stage(saying("quiet", "pass"), tmp_path, tmp_path / "log").closing == "done, with nothing to say"


def test_quick_leaves_out_what_needs_an_emulator_unless_named() -> None:
    emulated = saying("system", "pass", emulator=True)
    assert choose([GOOD, emulated], [], quick=True) == [GOOD]
    assert choose([GOOD, emulated], [], quick=False) == [GOOD, emulated]
    assert choose([GOOD, emulated], ["system"], quick=True) == [emulated]


def test_an_unknown_stage_is_a_usage_error_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.main(["unitt"]) == 2
    assert "there are: lint, format, types, imports" in capsys.readouterr().err


def test_an_expression_that_leaves_no_test_in_a_stage_fails_nothing(tmp_path: Path) -> None:
    pytest_with = ("-c", "raise SystemExit(5)", "pytest", "-k", "no_such")
    assert not run_stage(Stage("unit", "", ((sys.executable, *pytest_with),)), tmp_path, tmp_path / "log").failed
    assert run_stage(Stage("unit", "", ((sys.executable, *pytest_with[:3]),)), tmp_path, tmp_path / "log").failed


def test_the_choice_of_a_board_reaches_the_system_tests_only() -> None:
    chosen = ["--board", "/dev/serial/by-id/one"]
    with_board = [stage.name for stage in stages.stages(board=chosen) if chosen[1] in str(stage.commands)]
    assert with_board == ["system"]


def test_the_list_names_every_stage_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [s.name for s in stages.stages()]
