"""The runner, with benches written into a folder for the occasion."""

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as runner

GOOD = """
from tests.bench.figures import Context, Figure, figure

DESCRIPTION = "counts to three"


def run(context: Context) -> list[Figure]:
    return [figure("count", [3.0] * context.repeats, "steps", "higher", goal=2)]
"""
LOSSY = """
from tests.bench.figures import check_all_arrived

DESCRIPTION = "loses one"


def run(context):
    check_all_arrived("lossy", 10, 9)
"""


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name_of_package = f"benches_for_{tmp_path.name}"  # its own for each test: modules stay imported
    package = tmp_path / name_of_package
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "bench_good.py").write_text(GOOD)
    (package / "bench_lossy.py").write_text(LOSSY)
    monkeypatch.syspath_prepend(str(tmp_path))
    discover, run_bench = runner.discover, runner.run_bench
    monkeypatch.setattr(runner, "discover", lambda: discover(package))
    monkeypatch.setattr(
        runner, "run_bench", lambda name, *, quick: run_bench(name, quick=quick, package=name_of_package)
    )
    return package


@pytest.mark.usefixtures("benches")
def test_without_a_name_the_benches_are_listed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main([]) == 0
    assert capsys.readouterr().out == "good   counts to three\nlossy  loses one\n"


@pytest.mark.usefixtures("benches")
def test_json_prints_one_object_a_bench_on_stdout_and_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["good", "good", "--quick", "--json"]) == 0
    out, err = capsys.readouterr()
    reports = [json.loads(line) for line in out.splitlines()]
    assert [list(report) for report in reports] == [["bench", "commit", "host", "figures"]] * 2
    assert reports[0]["figures"][0]["value"] == 3
    assert "good: counts to three" in err


def test_what_a_bench_notes_of_its_surroundings_stands_beside_the_host_once(
    benches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noting = "context.note('on a whole core'); context.note('on a whole core')"
    (benches / "bench_noting.py").write_text(GOOD.replace("    return", f"    {noting}\n    return"))
    assert runner.main(["noting", "good", "--json"]) == 0
    out, err = capsys.readouterr()
    hosts = [json.loads(line)["host"] for line in out.splitlines()]
    assert hosts[0] == f"{hosts[1]}; on a whole core"
    assert "  on a whole core\n" in err


@pytest.mark.usefixtures("benches")
def test_a_bench_that_lost_messages_prints_no_figure_exits_1_and_the_next_still_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert runner.main(["lossy", "good", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["bench"] for line in out.splitlines()] == ["good"]
    assert "lossy: no figure: lossy: 9 of 10 arrived" in err


@pytest.mark.usefixtures("benches")
def test_an_unknown_bench_is_a_usage_error_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["god"]) == 2
    assert "no such bench: god; there are: good, lossy" in capsys.readouterr().err


@pytest.mark.usefixtures("benches")
def test_table_prints_markdown_of_saved_reports(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert runner.main(["good", "--json"]) == 0
    saved = tmp_path / "saved.json"
    saved.write_text(capsys.readouterr().out)
    assert runner.main(["--table", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "| `good` | `count` | 3 steps | 3 | ≥ 2 (met) |  |" in out


def test_every_bench_of_the_project_has_a_description_of_one_line() -> None:
    for name, description in runner.discover().items():
        assert description.strip(), name
        assert "\n" not in description, name
