"""The text of `edge function list`: what a person must see without asking for the JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge import cli
from edge.functions.figures import FunctionStatus

GATEWAY = '[gateway]\nname = "g"\ndata_dir = "state"\n'


def test_a_refused_function_is_listed_with_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (
        FunctionStatus(name="a", state="ready", calls=3, p99_ms=1.5, last_error="an old one"),
        FunctionStatus(name="b", state="refused", last_error="what it demands does not hold here: user: be root."),
    )

    def asked(*_: Any, **__: Any) -> Iterator[Any]:
        return iter(msgspec.to_builtins(rows))

    monkeypatch.setattr("edge.cli_functions.ask_rows", asked)
    file = tmp_path / "gateway.toml"
    file.write_text(GATEWAY)
    assert cli.main(["function", "list", "--config", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: ready, 3 calls, p99 1.5 ms, 0 errors",
        "b: refused, 0 calls, 0 errors: what it demands does not hold here: user: be root.",
    ]
