"""The examples: every gateway file whole, and every part as the README appends it to the first one."""

import json
import shutil
from pathlib import Path

import pytest

from edge.config import load_config
from edge.functions import wire
from edge.messages import Reading
from edge.rules.build import read_rules
from tests.functions.workers import Worker

FOLDER = Path(__file__).resolve().parents[1] / "device_configs"
PARTS = sorted(path.name for path in (FOLDER / "parts").iterdir())


def gateway_file(folder: Path, *parts: str) -> str:
    """first.toml with the parts behind it, the functions beside it."""
    shutil.copytree(FOLDER / "functions", folder / "functions")
    file = folder / "gateway.toml"
    texts = [FOLDER / "first.toml", *(FOLDER / "parts" / part for part in parts)]
    file.write_text("".join(path.read_text() for path in texts))
    return str(file)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_valid_behind_the_first_file(part: str, tmp_path: Path) -> None:
    config = load_config(gateway_file(tmp_path, part))
    assert len(read_rules(config)) + len(config.functions) == 1


def test_all_parts_are_valid_together(tmp_path: Path) -> None:
    config = load_config(gateway_file(tmp_path, *PARTS))
    assert len(read_rules(config)) + len(config.functions) == len(PARTS)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_every_rule_of_an_example_is_one_and_every_function_is_there(file: Path) -> None:
    config = load_config(str(file))
    read_rules(config)
    for function in config.functions:
        assert (file.parent / (function.exec[0] if function.exec else function.file)).is_file()


def example(name: str, *publish: str, handler: str = "") -> Worker:
    """The worker of an example."""
    return Worker(wire.Configure(name, "gateway", str(FOLDER / "functions" / f"{name}.py"), handler, publish=publish))


def published(worker: Worker) -> list[tuple[str, object]]:
    return [(one.topic, json.loads(one.payload)) for one in worker.requests if isinstance(one, wire.Publish)]


def test_the_demos_function_publishes_each_reading_in_fahrenheit_under_its_name() -> None:
    with example("fahrenheit", "fahrenheit/+") as worker:
        worker.ready()
        worker.done("dt/b1/temp", b'{"c":20.5}', reading=Reading("b1", 7, 3))
        worker.done("dt/b2/temp", b'{"c":-40}')
        assert published(worker) == [
            ("fahrenheit/b1", {"f": pytest.approx(68.9), "boot": 7, "seq": 3}),
            ("fahrenheit/b2", {"f": -40.0}),
        ]


def test_the_readmes_function_tells_changes_and_answers_and_tells_all_on_schedule() -> None:
    with example("warm", "warm/#") as worker:
        assert worker.ready().schedules[0].interval_s == 10
        for celsius in (29, 31, 32, 30):
            worker.done("dt/b1/temp", b'{"c":%d}' % celsius)
        worker.done("dt/b2/temp", b'{"c":35}')
        assert worker.done("ask/warm", b"") == b'{"boards":["b2"],"limit_c":30.0}'
        assert worker.done("ask/warm", b"20") == b'{"boards":["b1","b2"],"limit_c":20.0}'
        assert worker.failed("ask/warm", b"no number").error == "ValueError"
        worker.done("", b"", kind="schedule", schedule=0)
        assert published(worker) == [
            ("warm/b1", {"c": 31, "too_warm": True}),
            ("warm/b1", {"c": 30, "too_warm": False}),
            ("warm/b2", {"c": 35, "too_warm": True}),
            ("warm", {"boards": ["b2"]}),
        ]


def test_the_lambda_handler_runs_as_it_is() -> None:
    with example("lambda_function", "hello/#", handler="lambda_function.lambda_handler") as worker:
        worker.ready()
        worker.done("dt/b1/temp", b'{"c":1}')
        assert published(worker) == [("hello/dt/b1/temp", {"seen": {"c": 1}, "by": "lambda_function"})]
